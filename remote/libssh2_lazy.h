/* SPDX-License-Identifier: MIT */
/*
 * libssh2, opened when the first host is connected to by it (lazylib.h).
 * Include this in place of libssh2.h.
 */
#ifndef PP_LIBSSH2_LAZY_H
#define PP_LIBSSH2_LAZY_H

#include <libssh2.h>
#include <stdbool.h>

#include "lazylib.h"

#define PP_SSH2_SYMBOLS(X)                                                     \
  X(libssh2_channel_direct_tcpip_ex)                                           \
  X(libssh2_channel_eof)                                                       \
  X(libssh2_channel_get_exit_signal)                                           \
  X(libssh2_channel_get_exit_status)                                           \
  X(libssh2_channel_open_ex)                                                   \
  X(libssh2_channel_process_startup)                                           \
  X(libssh2_channel_read_ex)                                                   \
  X(libssh2_channel_send_eof)                                                  \
  X(libssh2_channel_setenv_ex)                                                 \
  X(libssh2_channel_wait_closed)                                               \
  X(libssh2_channel_write_ex)                                                  \
  X(libssh2_exit)                                                              \
  X(libssh2_free)                                                              \
  X(libssh2_init)                                                              \
  X(libssh2_session_callback_set)                                              \
  X(libssh2_session_disconnect_ex)                                             \
  X(libssh2_session_free)                                                      \
  X(libssh2_session_handshake)                                                 \
  X(libssh2_session_hostkey)                                                   \
  X(libssh2_session_init_ex)                                                   \
  X(libssh2_session_last_errno)                                                \
  X(libssh2_session_last_error)                                                \
  X(libssh2_session_method_pref)                                               \
  X(libssh2_session_set_blocking)                                              \
  X(libssh2_session_supported_algs)                                            \
  X(libssh2_userauth_authenticated)                                            \
  X(libssh2_userauth_keyboard_interactive_ex)                                  \
  X(libssh2_userauth_list)                                                     \
  X(libssh2_userauth_password_ex)                                              \
  X(libssh2_userauth_publickey)                                                \
  X(libssh2_version)

typedef struct pp_ssh2 {
  PP_SSH2_SYMBOLS(PP_LAZY_FIELD)
} pp_ssh2;
extern pp_ssh2 pp_ssh2_lib;

/* Open it, once; false: it is not here. */
bool pp_ssh2_open(void);

#ifndef PP_SSH2_PLAIN
#define libssh2_channel_direct_tcpip_ex                                        \
  (*pp_ssh2_lib.libssh2_channel_direct_tcpip_ex)
#define libssh2_channel_eof (*pp_ssh2_lib.libssh2_channel_eof)
#define libssh2_channel_get_exit_signal                                        \
  (*pp_ssh2_lib.libssh2_channel_get_exit_signal)
#define libssh2_channel_get_exit_status                                        \
  (*pp_ssh2_lib.libssh2_channel_get_exit_status)
#define libssh2_channel_open_ex (*pp_ssh2_lib.libssh2_channel_open_ex)
#define libssh2_channel_process_startup                                        \
  (*pp_ssh2_lib.libssh2_channel_process_startup)
#define libssh2_channel_read_ex (*pp_ssh2_lib.libssh2_channel_read_ex)
#define libssh2_channel_send_eof (*pp_ssh2_lib.libssh2_channel_send_eof)
#define libssh2_channel_setenv_ex (*pp_ssh2_lib.libssh2_channel_setenv_ex)
#define libssh2_channel_wait_closed (*pp_ssh2_lib.libssh2_channel_wait_closed)
#define libssh2_channel_write_ex (*pp_ssh2_lib.libssh2_channel_write_ex)
#define libssh2_exit (*pp_ssh2_lib.libssh2_exit)
#define libssh2_free (*pp_ssh2_lib.libssh2_free)
#define libssh2_init (*pp_ssh2_lib.libssh2_init)
#define libssh2_session_callback_set (*pp_ssh2_lib.libssh2_session_callback_set)
#define libssh2_session_disconnect_ex                                          \
  (*pp_ssh2_lib.libssh2_session_disconnect_ex)
#define libssh2_session_free (*pp_ssh2_lib.libssh2_session_free)
#define libssh2_session_handshake (*pp_ssh2_lib.libssh2_session_handshake)
#define libssh2_session_hostkey (*pp_ssh2_lib.libssh2_session_hostkey)
#define libssh2_session_init_ex (*pp_ssh2_lib.libssh2_session_init_ex)
#define libssh2_session_last_errno (*pp_ssh2_lib.libssh2_session_last_errno)
#define libssh2_session_last_error (*pp_ssh2_lib.libssh2_session_last_error)
#define libssh2_session_method_pref (*pp_ssh2_lib.libssh2_session_method_pref)
#define libssh2_session_set_blocking (*pp_ssh2_lib.libssh2_session_set_blocking)
#define libssh2_session_supported_algs                                         \
  (*pp_ssh2_lib.libssh2_session_supported_algs)
#define libssh2_userauth_authenticated                                         \
  (*pp_ssh2_lib.libssh2_userauth_authenticated)
#define libssh2_userauth_keyboard_interactive_ex                               \
  (*pp_ssh2_lib.libssh2_userauth_keyboard_interactive_ex)
#define libssh2_userauth_list (*pp_ssh2_lib.libssh2_userauth_list)
#define libssh2_userauth_password_ex (*pp_ssh2_lib.libssh2_userauth_password_ex)
#define libssh2_version (*pp_ssh2_lib.libssh2_version)
#define libssh2_userauth_publickey (*pp_ssh2_lib.libssh2_userauth_publickey)
#endif

#endif
