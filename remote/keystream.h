/* SPDX-License-Identifier: MIT */
/*
 * keystream: AES in counter mode for who asks for 16 bytes at a time.
 *
 * libssh2 ciphers block by block, one call of libcrypto's for each: 15 to 25 ns
 * for what takes 2 in a long run, for the rounds of one block must wait for
 * each other, while those of many go side by side. In counter mode the bytes
 * that text is combined with do not depend on the text. So here is a provider
 * (provider(7), provider-cipher(7) of OpenSSL 3) of AES-128-CTR, -192 and -256
 * that has the default provider make a page of them at a time, and only
 * combines.
 *
 *   libssh2 --16 bytes--> this: XOR --a page--> AES-CTR of the default provider
 *
 * It is in a library context of its own, which a thread has while it calls
 * libssh2 and no longer: nothing else in the process meets it. Where libcrypto
 * is older, or is configured to have providers of other people's choice (FIPS),
 * there is no such context, and ciphers are what they were.
 */
#ifndef PP_KEYSTREAM_H
#define PP_KEYSTREAM_H

/* What the thread's calls of libcrypto find is ours from here on. What to give
 * back to pp_keystream_leave, on the same thread; NULL: nothing was changed. */
void *pp_keystream_enter(void);
void pp_keystream_leave(void *was);

#endif
