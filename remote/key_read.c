/* SPDX-License-Identifier: MIT */
/*
 * One private key: read from the text of a file, and signing.
 *
 * OpenSSH's format is taken apart here; an ecdsa key in it is put together
 * again as the DER that libcrypto reads, since that is the one way in that all
 * its versions share. PEM is libcrypto's business.
 */
#include "keys.h"

#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "bcrypt.h"
#include "crypto.h"

enum { KEY_FILE_MAX = 64 << 10, ROUNDS_MAX = 4096 };

typedef struct curve {
  const char *name, *type;
  size_t bytes; /* of a coordinate */
  unsigned char oid[10];
  size_t noid;
} curve;

static const curve curves[] = {
    {"nistp256",
     "ecdsa-sha2-nistp256",
     32,
     {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7},
     10},
    {"nistp384", "ecdsa-sha2-nistp384", 48, {6, 5, 0x2b, 0x81, 4, 0, 0x22}, 7},
    {"nistp521", "ecdsa-sha2-nistp521", 66, {6, 5, 0x2b, 0x81, 4, 0, 0x23}, 7},
};
enum { CURVES = sizeof curves / sizeof *curves };

static int rd_u32(pp_rd *r, uint32_t *v) {
  const unsigned char *p;

  if (pp_rd_bytes(r, 4, &p) != 0)
    return PP_EBAD;
  *v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  return 0;
}

static int rd_string(pp_rd *r, pp_rd *out) {
  const unsigned char *p;
  uint32_t n;

  if (rd_u32(r, &n) != 0 || pp_rd_bytes(r, n, &p) != 0)
    return PP_EBAD;
  *out = pp_rd_of(p, n);
  return 0;
}

static bool rd_is(const pp_rd *r, const char *s) {
  size_t n = strlen(s);

  return pp_rd_left(r) == n && memcmp(r->p, s, n) == 0;
}

static int put_string(pp_buf *b, const void *p, size_t n) {
  unsigned char len[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
                          (unsigned char)(n >> 8), (unsigned char)n};

  return pp_buf_put(b, len, 4) != 0 ? PP_ENOMEM : pp_buf_put(b, p, n);
}

void pp_key_clear(pp_key *key) {
  EVP_PKEY_free(key->pkey);
  key->pkey = NULL;
  pp_buf_clear(&key->blob);
}

/* --- DER -------------------------------------------------------------------
 */

static size_t der_head(unsigned char *p, unsigned char tag, size_t n) {
  p[0] = tag;
  if (n < 128)
    return p[1] = (unsigned char)n, 2;
  p[1] = 0x81;
  p[2] = (unsigned char)n;
  return 3;
}

/* SEQUENCE { 1, private, [0] curve, [1] public } */
static EVP_PKEY *ecdsa_key(const curve *c, const pp_rd *d, const pp_rd *q) {
  unsigned char der[320], *p = der, body[300];
  const unsigned char *from = der, *v = d->p;
  size_t nd = pp_rd_left(d), nq = pp_rd_left(q), n = 0;
  EVP_PKEY *pkey;

  while (nd > 0 && *v == 0)
    v++, nd--;
  if (nd == 0 || nd > c->bytes || nq != 1 + 2 * c->bytes || q->p[0] != 4)
    return NULL;
  body[n++] = 2, body[n++] = 1, body[n++] = 1;
  n += der_head(body + n, 4, c->bytes);
  memset(body + n, 0, c->bytes - nd);
  memcpy(body + n + c->bytes - nd, v, nd);
  n += c->bytes;
  n += der_head(body + n, 0xa0, c->noid);
  memcpy(body + n, c->oid, c->noid);
  n += c->noid;
  n += der_head(body + n, 0xa1, nq + (nq + 1 < 128 ? 3 : 4));
  n += der_head(body + n, 3, nq + 1);
  body[n++] = 0;
  memcpy(body + n, q->p, nq);
  n += nq;
  p += der_head(p, 0x30, n);
  memcpy(p, body, n);
  pkey = d2i_PrivateKey(EVP_PKEY_EC, NULL, &from, (long)(p - der) + (long)n);
  pp_wipe(der, sizeof der);
  pp_wipe(body, sizeof body);
  return pkey;
}

/* --- OpenSSH's format -------------------------------------------------------
 */

static const char begin_openssh[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
static const char end_openssh[] = "-----END OPENSSH PRIVATE KEY-----";

/* What the lines between begin and end stand for. */
static int unfold(pp_buf *out, const char *p, const char *end) {
  pp_buf text = {0};
  int status = 0;

  for (; p < end && status == 0; p++)
    if (*p != '\n' && *p != '\r' && *p != ' ' && *p != '\t')
      status = pp_buf_byte(&text, (unsigned char)*p);
  if (status == 0)
    status = pp_base64_decode((char *)text.data, text.len, out);
  if (text.data != NULL)
    pp_wipe(text.data, text.cap);
  pp_buf_clear(&text);
  return status;
}

/* What libcrypto calls a cipher of ssh; NULL when it is none for us. */
static const EVP_CIPHER *cipher_of(const pp_rd *name, bool *gcm) {
  *gcm = false;
  if (rd_is(name, "aes256-ctr"))
    return EVP_aes_256_ctr();
  if (rd_is(name, "aes192-ctr"))
    return EVP_aes_192_ctr();
  if (rd_is(name, "aes128-ctr"))
    return EVP_aes_128_ctr();
  if (rd_is(name, "aes256-cbc"))
    return EVP_aes_256_cbc();
  if (rd_is(name, "aes192-cbc"))
    return EVP_aes_192_cbc();
  if (rd_is(name, "aes128-cbc"))
    return EVP_aes_128_cbc();
  *gcm = true;
  if (rd_is(name, "aes256-gcm@openssh.com"))
    return EVP_aes_256_gcm();
  if (rd_is(name, "aes128-gcm@openssh.com"))
    return EVP_aes_128_gcm();
  return NULL;
}

static int decrypt(const EVP_CIPHER *cipher, bool gcm, const unsigned char *key,
                   unsigned char *data, size_t n, const unsigned char *tag) {
  const unsigned char *iv = key + EVP_CIPHER_key_length(cipher);
  EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
  int len = 0, ok;

  if (c == NULL)
    return PP_ENOMEM;
  ok = EVP_DecryptInit_ex(c, cipher, NULL, key, iv) == 1 &&
       EVP_CIPHER_CTX_set_padding(c, 0) == 1 &&
       (!gcm ||
        EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, 16, (void *)tag) == 1) &&
       EVP_DecryptUpdate(c, data, &len, data, (int)n) == 1 &&
       EVP_DecryptFinal_ex(c, data + len, &len) == 1;
  EVP_CIPHER_CTX_free(c);
  return ok ? 0 : PP_EBAD;
}

static int private_part(pp_key *key, pp_rd r, const char **why) {
  pp_rd type, name, q, d;
  uint32_t a, b;
  size_t i;

  /* Two equal words say that the passphrase was right. */
  if (rd_u32(&r, &a) != 0 || rd_u32(&r, &b) != 0 || a != b)
    return PP_KEY_NEEDS_PASSPHRASE;
  if (rd_string(&r, &type) != 0)
    return PP_EBAD;
  if (rd_is(&type, "ssh-ed25519")) {
    if (rd_string(&r, &q) != 0 || rd_string(&r, &d) != 0 ||
        pp_rd_left(&d) != 64)
      return PP_EBAD;
    key->pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, d.p, 32);
    return key->pkey != NULL ? 0 : PP_EBAD;
  }
  for (i = 0; i < CURVES; i++)
    if (rd_is(&type, curves[i].type)) {
      if (rd_string(&r, &name) != 0 || rd_string(&r, &q) != 0 ||
          rd_string(&r, &d) != 0)
        return PP_EBAD;
      key->pkey = ecdsa_key(&curves[i], &d, &q);
      return key->pkey != NULL ? 0 : PP_EBAD;
    }
  *why = "is of a type the built-in client cannot sign with";
  return PP_EBAD;
}

static int read_openssh(pp_key *key, pp_buf *file, const char *passphrase,
                        const char **why) {
  static const char magic[] = "openssh-key-v1";
  pp_rd r = pp_rd_of(file->data, file->len), cipher, kdf, options, pub, priv;
  const unsigned char *p, *tag = NULL;
  uint32_t n;
  bool gcm = false;
  int status;

  *why = "cannot be read";
  if (pp_rd_bytes(&r, sizeof magic, &p) != 0 ||
      memcmp(p, magic, sizeof magic) != 0 || rd_string(&r, &cipher) != 0 ||
      rd_string(&r, &kdf) != 0 || rd_string(&r, &options) != 0 ||
      rd_u32(&r, &n) != 0 || n != 1 || rd_string(&r, &pub) != 0 ||
      rd_string(&r, &priv) != 0)
    return PP_EBAD;
  if (!rd_is(&cipher, "none")) {
    const EVP_CIPHER *c = cipher_of(&cipher, &gcm);
    unsigned char secret[64];
    uint32_t rounds;
    pp_rd salt;

    if (c == NULL || !rd_is(&kdf, "bcrypt")) {
      *why = "is encrypted in a way the built-in client does not know";
      return PP_EBAD;
    }
    if (rd_string(&options, &salt) != 0 || rd_u32(&options, &rounds) != 0 ||
        rounds > ROUNDS_MAX || (gcm && pp_rd_bytes(&r, 16, &tag) != 0) ||
        pp_rd_left(&priv) % 16 != 0)
      return PP_EBAD;
    if (passphrase == NULL || *passphrase == '\0')
      return PP_KEY_NEEDS_PASSPHRASE;
    status = pp_bcrypt_pbkdf(
        passphrase, strlen(passphrase), salt.p, pp_rd_left(&salt), rounds,
        secret, (size_t)(EVP_CIPHER_key_length(c) + EVP_CIPHER_iv_length(c)));
    if (status == 0)
      /* In place: it is our copy of the file. */
      status = decrypt(c, gcm, secret, (unsigned char *)priv.p,
                       pp_rd_left(&priv), tag);
    pp_wipe(secret, sizeof secret);
    if (status != 0)
      return gcm && status == PP_EBAD ? PP_KEY_NEEDS_PASSPHRASE : status;
  }
  status = private_part(key, priv, why);
  if (status == PP_KEY_NEEDS_PASSPHRASE && rd_is(&cipher, "none"))
    status = PP_EBAD;
  if (status != 0)
    return status;
  return pp_buf_put(&key->blob, pub.p, pp_rd_left(&pub));
}

/* --- PEM -------------------------------------------------------------------
 */

typedef struct pem_passphrase {
  const char *text;
  bool wanted;
} pem_passphrase;

static int give_passphrase(char *out, int size, int writing, void *ud) {
  pem_passphrase *pass = ud;
  size_t n = pass->text != NULL ? strlen(pass->text) : 0;

  (void)writing;
  pass->wanted = true;
  if (n == 0 || n > (size_t)size)
    return -1;
  memcpy(out, pass->text, n);
  return (int)n;
}

/* The public key of an EVP_PKEY as ssh writes it. That a public key's DER ends
 * in the point itself is true of both kinds. */
static int public_blob(pp_key *key, const char **why) {
  unsigned char *der = NULL;
  int n = i2d_PUBKEY(key->pkey, &der), status = PP_EBAD;
  size_t i, size = n > 0 ? (size_t)n : 0;

  *why = "is of a type the built-in client cannot sign with";
  if (size > 32 && EVP_PKEY_base_id(key->pkey) == EVP_PKEY_ED25519) {
    status = put_string(&key->blob, "ssh-ed25519", 11);
    if (status == 0)
      status = put_string(&key->blob, der + size - 32, 32);
  }
  for (i = 0; i < CURVES && status == PP_EBAD; i++) {
    const curve *c = &curves[i];
    size_t point = 1 + 2 * c->bytes;

    if (EVP_PKEY_base_id(key->pkey) != EVP_PKEY_EC || size <= point ||
        memmem(der, size - point, c->oid, c->noid) == NULL ||
        der[size - point] != 4)
      continue;
    status = put_string(&key->blob, c->type, strlen(c->type));
    if (status == 0)
      status = put_string(&key->blob, c->name, strlen(c->name));
    if (status == 0)
      status = put_string(&key->blob, der + size - point, point);
  }
  OPENSSL_free(der);
  return status;
}

static int read_pem(pp_key *key, const void *text, size_t n,
                    const char *passphrase, const char **why) {
  pem_passphrase pass = {passphrase, false};
  BIO *bio = BIO_new_mem_buf(text, (int)n);

  if (bio == NULL)
    return PP_ENOMEM;
  key->pkey = PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, &pass);
  BIO_free(bio);
  if (key->pkey != NULL)
    return public_blob(key, why);
  *why = "cannot be read";
  return pass.wanted ? PP_KEY_NEEDS_PASSPHRASE : PP_EBAD;
}

int pp_key_read(pp_key *key, const void *text, size_t n, const char *passphrase,
                const char **why) {
  const char *begin, *end;
  pp_buf file = {0};
  int status;

  memset(key, 0, sizeof *key);
  *why = "cannot be read";
  if (n > KEY_FILE_MAX)
    return PP_EBAD;
  if (!pp_crypto_open()) {
    *why = "cannot be read: libcrypto is not installed here";
    return PP_EBAD;
  }
  begin = memmem(text, n, begin_openssh, sizeof begin_openssh - 1);
  if (begin == NULL) {
    status = read_pem(key, text, n, passphrase, why);
  } else {
    begin += sizeof begin_openssh - 1;
    end = memmem(begin, n - (size_t)(begin - (const char *)text), end_openssh,
                 sizeof end_openssh - 1);
    status = end != NULL ? unfold(&file, begin, end) : PP_EBAD;
    if (status == 0)
      status = read_openssh(key, &file, passphrase, why);
    if (file.data != NULL)
      pp_wipe(file.data, file.cap);
    pp_buf_clear(&file);
  }
  if (status != 0)
    pp_key_clear(key);
  return status;
}

/* --- signing ----------------------------------------------------------------
 */

/* An INTEGER of DER has the very bytes of an mpint. */
static int copy_integer(pp_rd *r, pp_buf *out) {
  const unsigned char *p;
  unsigned char tag, n;

  if (pp_rd_byte(r, &tag) != 0 || tag != 2 || pp_rd_byte(r, &n) != 0 ||
      n >= 128 || pp_rd_bytes(r, n, &p) != 0)
    return PP_EBAD;
  return put_string(out, p, n);
}

static int ecdsa_signature(const unsigned char *der, size_t n, pp_buf *out) {
  pp_rd r = pp_rd_of(der, n);
  unsigned char c;
  int status;

  if (pp_rd_byte(&r, &c) != 0 || c != 0x30 || pp_rd_byte(&r, &c) != 0 ||
      (c == 0x81 && pp_rd_byte(&r, &c) != 0))
    return PP_EBAD;
  status = copy_integer(&r, out);
  return status != 0 ? status : copy_integer(&r, out);
}

int pp_key_sign(const pp_key *key, const void *data, size_t n, pp_buf *out) {
  unsigned char sig[256];
  size_t nsig = sizeof sig, start = out->len;
  const EVP_MD *md = NULL;
  EVP_MD_CTX *c;
  bool ec;
  int ok, status = PP_EBAD;

  if (key->pkey == NULL || (c = EVP_MD_CTX_new()) == NULL)
    return PP_EBAD;
  ec = EVP_PKEY_base_id(key->pkey) == EVP_PKEY_EC;
  if (ec)
    md = EVP_PKEY_bits(key->pkey) <= 256   ? EVP_sha256()
         : EVP_PKEY_bits(key->pkey) <= 384 ? EVP_sha384()
                                           : EVP_sha512();
  ok = EVP_DigestSignInit(c, NULL, md, NULL, key->pkey) == 1 &&
       EVP_DigestSign(c, sig, &nsig, data, n) == 1;
  EVP_MD_CTX_free(c);
  if (ok)
    status = ec ? ecdsa_signature(sig, nsig, out) : pp_buf_put(out, sig, nsig);
  if (status != 0)
    out->len = start;
  return status;
}
