/* SPDX-License-Identifier: MIT */
/* Key files as ssh-keygen and openssl write them, and what is in them. */
#include "check.h"
#include "identity.h"

static void run(const char *command) {
  if (system(command) != 0) {
    printf("FAIL %s\n", command);
    failures++;
  }
}

/* The public half, as ssh-keygen says it is. */
static void same_blob(const pp_identity *id, const char *pub) {
  pp_identity p;

  CHECK(pp_identity_look(&p, pub) == 0);
  CHECK(!p.exists && p.blob.len > 0);
  CHECK(id->blob.len == p.blob.len &&
        memcmp(id->blob.data, p.blob.data, p.blob.len) == 0);
  CHECK_STR(id->type, p.type);
  pp_identity_clear(&p);
}

static void made(const char *options, const char *type, bool encrypted,
                 bool builtin) {
  char command[256];
  pp_identity id;

  snprintf(command, sizeof command, "rm -f k k.pub; ssh-keygen -q -f k %s",
           options);
  run(command);
  CHECK(pp_identity_look(&id, "k") == 0);
  CHECK(id.exists && id.encrypted == encrypted && !id.has_cert);
  CHECK_STR(id.type, type);
  CHECK(pp_identity_builtin(id.type) == builtin);
  same_blob(&id, "k.pub");
  pp_identity_clear(&id);

  /* Alone it says what it can. */
  run("mv k.pub other.pub");
  CHECK(pp_identity_look(&id, "k") == 0);
  CHECK(id.exists && id.encrypted == encrypted);
  CHECK(strstr(options, "-m") != NULL || id.blob.len > 0);
  CHECK(id.type[0] == '\0' || strncmp(id.type, type, strlen(id.type)) == 0);
  CHECK(id.type[0] != '\0' || strstr(options, "PKCS8 -N secret") != NULL);
  if (id.blob.len > 0)
    same_blob(&id, "other.pub");
  pp_identity_clear(&id);
}

static void files(void) {
  pp_identity id;

  made("-t ed25519 -N ''", "ssh-ed25519", false, true);
  made("-t ed25519 -N secret -a 1", "ssh-ed25519", true, true);
  made("-t ecdsa -b 256 -N ''", "ecdsa-sha2-nistp256", false, true);
  made("-t ecdsa -b 384 -N '' -m PEM", "ecdsa-sha2-nistp384", false, true);
  made("-t ecdsa -b 521 -N '' -m PKCS8", "ecdsa-sha2-nistp521", false, true);
  made("-t ecdsa -b 521 -N secret -m PEM", "ecdsa-sha2-nistp521", true, true);
  made("-t ecdsa -m PKCS8 -N secret", "ecdsa-sha2-nistp256", true, true);
  made("-t rsa -b 1024 -N '' -m PEM", "ssh-rsa", false, false);
  made("-t rsa -b 1024 -N ''", "ssh-rsa", false, false);
  made("-t rsa -b 1024 -N '' -m PKCS8", "ssh-rsa", false, false);
  made("-t rsa -b 1024 -N secret -m PEM", "ssh-rsa", true, false);

  run("rm -f k k.pub; ssh-keygen -q -t ed25519 -N '' -f k && "
      "ssh-keygen -q -s k -I me k.pub 2>/dev/null");
  CHECK(pp_identity_look(&id, "k") == 0);
  CHECK(id.exists && id.has_cert);
  pp_identity_clear(&id);
  pp_identity_clear(&id);
}

static void none(void) {
  static const char *const texts[] = {
      "",
      "\n",
      "hello",
      "-----BEGIN OPENSSH PRIVATE KEY-----",
      "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"
      "-----END OPENSSH PRIVATE KEY-----\n",
      "-----BEGIN OPENSSH PRIVATE KEY-----\n!!!!\n-----END",
      "-----BEGIN SOMETHING ELSE-----\nAAAA\n-----END SOMETHING ELSE-----\n",
      "ssh-ed25519",
      "ssh-ed25519 AAAA",
      "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"
      "Hh8g",
  };
  pp_identity id;

  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    FILE *f = fopen("bad", "w");

    fputs(texts[i], f);
    fclose(f);
    CHECK(pp_identity_look(&id, "bad") == 0);
    CHECK(!id.exists && id.blob.len == 0);
    pp_identity_clear(&id);
  }
  CHECK(pp_identity_look(&id, "missing") == 0 && !id.exists);
  CHECK(pp_identity_look(&id, ".") == 0 && !id.exists);
  run("mkfifo fifo");
  CHECK(pp_identity_look(&id, "fifo") == 0 && !id.exists);
  run("head -c 100000 /dev/zero >large");
  CHECK(pp_identity_look(&id, "large") == 0 && !id.exists);
  CHECK(!pp_identity_builtin("") && !pp_identity_builtin("ssh-rsa") &&
        !pp_identity_builtin("sk-ssh-ed25519@openssh.com") &&
        !pp_identity_builtin("ecdsa-sha2-nistp256-cert-v01@openssh.com"));
}

int main(void) {
  enter();
  none();
  if (have("ssh-keygen"))
    files();
  else
    puts("real key files were not tried: there is no ssh-keygen");
  return leave();
}
