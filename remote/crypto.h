/* SPDX-License-Identifier: MIT */
/*
 * libcrypto, opened when the first private key is read (lazylib.h). Include
 * this in place of OpenSSL's headers.
 */
#ifndef PP_CRYPTO_H
#define PP_CRYPTO_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdbool.h>

#include "lazylib.h"

#define PP_CRYPTO_SYMBOLS(X)                                                   \
  X(BIO_free)                                                                  \
  X(BIO_new_mem_buf)                                                           \
  X(CRYPTO_free)                                                               \
  X(EVP_CIPHER_CTX_ctrl)                                                       \
  X(EVP_CIPHER_CTX_free)                                                       \
  X(EVP_CIPHER_CTX_new)                                                        \
  X(EVP_CIPHER_CTX_set_padding)                                                \
  X(EVP_CIPHER_get_iv_length)                                                  \
  X(EVP_CIPHER_get_key_length)                                                 \
  X(EVP_DecryptFinal_ex)                                                       \
  X(EVP_DecryptInit_ex)                                                        \
  X(EVP_DecryptUpdate)                                                         \
  X(EVP_DigestSign)                                                            \
  X(EVP_DigestSignInit)                                                        \
  X(EVP_MD_CTX_free)                                                           \
  X(EVP_MD_CTX_new)                                                            \
  X(EVP_PKEY_free)                                                             \
  X(EVP_PKEY_get_base_id)                                                      \
  X(EVP_PKEY_get_bits)                                                         \
  X(EVP_PKEY_new_raw_private_key)                                              \
  X(EVP_aes_128_cbc)                                                           \
  X(EVP_aes_128_ctr)                                                           \
  X(EVP_aes_128_gcm)                                                           \
  X(EVP_aes_192_cbc)                                                           \
  X(EVP_aes_192_ctr)                                                           \
  X(EVP_aes_256_cbc)                                                           \
  X(EVP_aes_256_ctr)                                                           \
  X(EVP_aes_256_gcm)                                                           \
  X(EVP_sha256)                                                                \
  X(EVP_sha384)                                                                \
  X(EVP_sha512)                                                                \
  X(PEM_read_bio_PrivateKey)                                                   \
  X(SHA512)                                                                    \
  X(d2i_PrivateKey)                                                            \
  X(i2d_PUBKEY)

typedef struct pp_crypto {
  PP_CRYPTO_SYMBOLS(PP_LAZY_FIELD)
} pp_crypto;
extern pp_crypto pp_crypto_lib;

/* Open it, once; false: it is not here. */
bool pp_crypto_open(void);

#ifndef PP_CRYPTO_PLAIN
#define BIO_free (*pp_crypto_lib.BIO_free)
#define BIO_new_mem_buf (*pp_crypto_lib.BIO_new_mem_buf)
#define CRYPTO_free (*pp_crypto_lib.CRYPTO_free)
#define EVP_CIPHER_CTX_ctrl (*pp_crypto_lib.EVP_CIPHER_CTX_ctrl)
#define EVP_CIPHER_CTX_free (*pp_crypto_lib.EVP_CIPHER_CTX_free)
#define EVP_CIPHER_CTX_new (*pp_crypto_lib.EVP_CIPHER_CTX_new)
#define EVP_CIPHER_CTX_set_padding (*pp_crypto_lib.EVP_CIPHER_CTX_set_padding)
#define EVP_CIPHER_get_iv_length (*pp_crypto_lib.EVP_CIPHER_get_iv_length)
#define EVP_CIPHER_get_key_length (*pp_crypto_lib.EVP_CIPHER_get_key_length)
#define EVP_DecryptFinal_ex (*pp_crypto_lib.EVP_DecryptFinal_ex)
#define EVP_DecryptInit_ex (*pp_crypto_lib.EVP_DecryptInit_ex)
#define EVP_DecryptUpdate (*pp_crypto_lib.EVP_DecryptUpdate)
#define EVP_DigestSign (*pp_crypto_lib.EVP_DigestSign)
#define EVP_DigestSignInit (*pp_crypto_lib.EVP_DigestSignInit)
#define EVP_MD_CTX_free (*pp_crypto_lib.EVP_MD_CTX_free)
#define EVP_MD_CTX_new (*pp_crypto_lib.EVP_MD_CTX_new)
#define EVP_PKEY_free (*pp_crypto_lib.EVP_PKEY_free)
#define EVP_PKEY_get_base_id (*pp_crypto_lib.EVP_PKEY_get_base_id)
#define EVP_PKEY_get_bits (*pp_crypto_lib.EVP_PKEY_get_bits)
#define EVP_PKEY_new_raw_private_key                                           \
  (*pp_crypto_lib.EVP_PKEY_new_raw_private_key)
#define EVP_aes_128_cbc (*pp_crypto_lib.EVP_aes_128_cbc)
#define EVP_aes_128_ctr (*pp_crypto_lib.EVP_aes_128_ctr)
#define EVP_aes_128_gcm (*pp_crypto_lib.EVP_aes_128_gcm)
#define EVP_aes_192_cbc (*pp_crypto_lib.EVP_aes_192_cbc)
#define EVP_aes_192_ctr (*pp_crypto_lib.EVP_aes_192_ctr)
#define EVP_aes_256_cbc (*pp_crypto_lib.EVP_aes_256_cbc)
#define EVP_aes_256_ctr (*pp_crypto_lib.EVP_aes_256_ctr)
#define EVP_aes_256_gcm (*pp_crypto_lib.EVP_aes_256_gcm)
#define EVP_sha256 (*pp_crypto_lib.EVP_sha256)
#define EVP_sha384 (*pp_crypto_lib.EVP_sha384)
#define EVP_sha512 (*pp_crypto_lib.EVP_sha512)
#define PEM_read_bio_PrivateKey (*pp_crypto_lib.PEM_read_bio_PrivateKey)
#define SHA512 (*pp_crypto_lib.SHA512)
#define d2i_PrivateKey (*pp_crypto_lib.d2i_PrivateKey)
#define i2d_PUBKEY (*pp_crypto_lib.i2d_PUBKEY)
#endif

#endif
