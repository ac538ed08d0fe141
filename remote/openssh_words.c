/* SPDX-License-Identifier: MIT */
#include "openssh_words.h"

#include <string.h>

bool pp_openssh_begins(const char *s, const char *with) {
  return strncmp(s, with, strlen(with)) == 0;
}

bool pp_openssh_own_words(const char *p) {
  return pp_openssh_begins(p, "Connection to ") ||
         pp_openssh_begins(p, "Connection closed by ") ||
         pp_openssh_begins(p, "Connection reset by ") ||
         pp_openssh_begins(p, "Transferred: sent ") ||
         pp_openssh_begins(p, "Bytes per second: ") ||
         pp_openssh_begins(p, "client_loop: ") ||
         pp_openssh_begins(p, "Timeout, server ") ||
         pp_openssh_begins(p, "Received disconnect from ") ||
         pp_openssh_begins(p, "Disconnected from ") ||
         pp_openssh_begins(p, "packet_write_wait: ") ||
         pp_openssh_begins(p, "Read from remote host ") ||
         pp_openssh_begins(p, "exec request failed on channel ") ||
         pp_openssh_begins(p, "channel 0: ") ||
         pp_openssh_begins(p, "Killed by signal ") ||
         pp_openssh_begins(p, "ssh_dispatch_run_fatal: ");
}

pp_end pp_openssh_kind(const char *reason, bool proxied) {
  static const struct {
    const char *words;
    pp_end kind;
  } known[] = {
      {"Could not resolve hostname", PP_END_RESOLVE},
      {"Connection refused", PP_END_REFUSED},
      {"Operation timed out", PP_END_TIMEOUT},
      {"Connection timed out", PP_END_TIMEOUT},
      {" timed out", PP_END_TIMEOUT},
      {"No route to host", PP_END_UNREACHABLE},
      {"Network is unreachable", PP_END_UNREACHABLE},
      {"channel 0: open failed: ", PP_END_EXEC},
      {"Host key verification failed", PP_END_HOSTKEY},
      {"host key", PP_END_HOSTKEY},
      {"HOST IDENTIFICATION HAS CHANGED", PP_END_HOSTKEY},
      {"Permission denied (", PP_END_AUTH},
      {"Too many authentication failures", PP_END_AUTH},
      {"exec request failed", PP_END_EXEC},
      {"Unable to negotiate", PP_END_UNSUPPORTED},
      {"Connection closed by UNKNOWN port", PP_END_LOST},
      {"Exceeded MaxStartups", PP_END_BUSY},
      {"Not allowed at this time", PP_END_BUSY},
      {"kex_exchange_identification: ", PP_END_BUSY},
      {"ssh_exchange_identification: ", PP_END_BUSY},
      {"banner exchange: ", PP_END_BUSY},
  };
  size_t i;

  for (i = 0; i < sizeof known / sizeof *known; i++)
    if (strstr(reason, known[i].words) != NULL)
      return known[i].kind == PP_END_BUSY && proxied ? PP_END_UNREACHABLE
                                                     : known[i].kind;
  return PP_END_LOST;
}
