/* SPDX-License-Identifier: MIT */
/* Private keys of every form ssh-keygen writes: read, and signed with. */
#include "keys.h"

#include <openssl/evp.h>

#include "bcrypt.h"
#include "check.h"
#include "identity.h"

/* As crypto.h has it; here the library itself is linked, to verify with. */
bool pp_crypto_open(void);

static char *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  char *p = malloc(1 << 16);

  *n = f != NULL ? fread(p, 1, 1 << 16, f) : 0;
  if (f != NULL)
    fclose(f);
  return p;
}

/* The signature of ssh back into DER, to have it verified. */
static size_t der_of(const pp_buf *sig, unsigned char *out) {
  const unsigned char *p = sig->data;
  size_t n = 0, body = 0, i;

  for (i = 0; i < 2; i++) {
    size_t len = (size_t)p[2] << 8 | p[3];

    out[4 + n++] = 2;
    out[4 + n++] = (unsigned char)len;
    memcpy(out + 4 + n, p + 4, len);
    n += len;
    p += 4 + len;
  }
  CHECK(p == sig->data + sig->len);
  body = n;
  out[0] = 0x30;
  if (body < 128) {
    out[1] = (unsigned char)body;
    memmove(out + 2, out + 4, body);
    return body + 2;
  }
  out[1] = 0x81;
  out[2] = (unsigned char)body;
  memmove(out + 3, out + 4, body);
  return body + 3;
}

static void check_signature(const pp_key *key) {
  static const char data[] = "what is to be signed";
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  unsigned char der[400];
  const unsigned char *sig;
  const EVP_MD *md = NULL;
  pp_buf out = {0};
  size_t n;

  CHECK(pp_key_sign(key, data, sizeof data, &out) == 0);
  if (EVP_PKEY_base_id(key->pkey) == EVP_PKEY_ED25519) {
    CHECK(out.len == 64);
    sig = out.data;
    n = out.len;
  } else {
    int bits = EVP_PKEY_bits(key->pkey);

    md = bits <= 256 ? EVP_sha256() : bits <= 384 ? EVP_sha384() : EVP_sha512();
    n = der_of(&out, der);
    sig = der;
  }
  CHECK(EVP_DigestVerifyInit(c, NULL, md, NULL, key->pkey) == 1);
  CHECK(EVP_DigestVerify(c, sig, n, (const unsigned char *)data, sizeof data) ==
        1);
  EVP_MD_CTX_free(c);
  pp_buf_clear(&out);
}

/* Make a key with these options of ssh-keygen; read it, if it is readable. */
static void check_key(const char *options, const char *passphrase, bool ours) {
  char command[300];
  const char *why = NULL;
  pp_identity id;
  pp_key key;
  size_t n;
  char *text;

  snprintf(command, sizeof command,
           "rm -f key key.pub; ssh-keygen -q %s -N '%s' -f key", options,
           passphrase);
  if (system(command) != 0) {
    printf("this ssh-keygen does not know %s\n", options);
    return;
  }
  text = slurp("key", &n);
  if (*passphrase != '\0' && ours) {
    CHECK(pp_key_read(&key, text, n, NULL, &why) == PP_KEY_NEEDS_PASSPHRASE);
    CHECK(pp_key_read(&key, text, n, "", &why) == PP_KEY_NEEDS_PASSPHRASE);
    CHECK(pp_key_read(&key, text, n, "wrong", &why) == PP_KEY_NEEDS_PASSPHRASE);
  }
  if (!ours) {
    CHECK(pp_key_read(&key, text, n, passphrase, &why) == PP_EBAD);
    CHECK(why != NULL && *why != '\0');
  } else if (pp_key_read(&key, text, n, passphrase, &why) != 0) {
    printf("%s, '%s': %s\n", options, passphrase, why);
    CHECK(!"read");
  } else {
    memset(&id, 0, sizeof id);
    CHECK(pp_identity_look(&id, "key") == 0);
    CHECK(id.blob.len == key.blob.len &&
          memcmp(id.blob.data, key.blob.data, key.blob.len) == 0);
    check_signature(&key);
    pp_identity_clear(&id);
    pp_key_clear(&key);
  }
  /* Cut anywhere, it is refused, and nothing is read beyond. */
  if (*passphrase == '\0') {
    size_t i;

    for (i = 0; i < n; i += 7) {
      char *exact = malloc(i > 0 ? i : 1);

      memcpy(exact, text, i);
      if (pp_key_read(&key, exact, i, NULL, &why) == 0) {
        /* All but the end line, perhaps. */
        CHECK(n - i < 40);
        pp_key_clear(&key);
      }
      free(exact);
    }
  }
  free(text);
}

/* As OpenBSD's own test has it. */
static void check_bcrypt(void) {
  static const unsigned char want[] = {
      0x5b, 0xbf, 0x0c, 0xc2, 0x93, 0x58, 0x7f, 0x1c, 0x36, 0x35, 0x55,
      0x5c, 0x27, 0x79, 0x65, 0x98, 0xd4, 0x7e, 0x57, 0x90, 0x71, 0xbf,
      0x42, 0x7e, 0x9d, 0x8f, 0xbe, 0x84, 0x2a, 0xba, 0x34, 0xd9};
  unsigned char key[64];

  CHECK(pp_bcrypt_pbkdf("password", 8, "salt", 4, 4, key, 32) == 0);
  CHECK(memcmp(key, want, sizeof want) == 0);
  CHECK(pp_bcrypt_pbkdf("", 0, "salt", 4, 4, key, 32) == PP_EBAD);
  CHECK(pp_bcrypt_pbkdf("p", 1, "", 0, 4, key, 32) == PP_EBAD);
  CHECK(pp_bcrypt_pbkdf("p", 1, "salt", 4, 0, key, 32) == PP_EBAD);
}

int main(void) {
  static const char *const types[] = {"-t ed25519", "-t ecdsa -b 256",
                                      "-t ecdsa -b 384", "-t ecdsa -b 521"};
  static const char *const ciphers[] = {"aes256-ctr",
                                        "aes128-cbc",
                                        "aes256-cbc",
                                        "aes192-ctr",
                                        "aes256-gcm@openssh.com",
                                        "aes128-gcm@openssh.com"};
  char options[100];
  size_t i;

  CHECK(pp_crypto_open());
  check_bcrypt();
  if (!have("ssh-keygen")) {
    printf("there is no ssh-keygen here; key files were not looked at\n");
    return failures > 0;
  }
  enter();
  for (i = 0; i < sizeof types / sizeof *types; i++) {
    check_key(types[i], "", true);
    snprintf(options, sizeof options, "-a 1 %s", types[i]);
    check_key(options, "open sesame", true);
    if (i > 0) {
      snprintf(options, sizeof options, "-m PEM %s", types[i]);
      check_key(options, "", true);
      check_key(options, "open sesame", true);
      snprintf(options, sizeof options, "-m PKCS8 %s", types[i]);
      check_key(options, "", true);
      check_key(options, "open sesame", true);
    }
  }
  for (i = 0; i < sizeof ciphers / sizeof *ciphers; i++) {
    snprintf(options, sizeof options, "-a 1 -t ed25519 -Z %s", ciphers[i]);
    check_key(options, "open sesame", true);
  }
  check_key("-a 1 -t ed25519 -Z chacha20-poly1305@openssh.com", "open sesame",
            false);
  check_key("-t rsa -b 2048", "", false);
  check_key("-m PEM -t rsa -b 2048", "", false);
  return leave();
}
