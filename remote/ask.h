/* SPDX-License-Identifier: MIT */
/*
 * ask: questions at the terminal, one at a time.
 *
 * Questions of many hosts wait in line. The answer is typed at /dev/tty, shown
 * or not, with the usual editing (erase, ^U, ^W); Ctrl-C gives up the question,
 * all that wait behind it, and is then sent to the program as SIGINT. Where
 * there is no terminal, or it belongs to another process group, nothing is
 * asked. What was typed is wiped as soon as it was handed on.
 */
#ifndef PP_ASK_H
#define PP_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#define PP_ANSWER_MAX 1024

typedef struct pp_ask pp_ask;
typedef struct pp_question pp_question;

typedef enum pp_answer {
  PP_ANSWER_GIVEN,
  PP_ANSWER_CANCELLED, /* Ctrl-C, or end of file */
  PP_ANSWER_NO_TERMINAL,
} pp_answer;

/* NULL when memory is short. path: "/dev/tty". */
pp_ask *pp_ask_new(uv_loop_t *loop, const char *path, bool never,
                   void (*asking)(void *ud, bool on), void *ud);
/* Questions left over are dropped, and the terminal is as it was. closed(ud)
 * once the loop holds nothing of it. */
void pp_ask_close(pp_ask *a, void (*closed)(void *ud), void *ud);

/* Could a question be asked now? */
bool pp_ask_possible(const pp_ask *a);

/*
 * Put a question in line. answered(ud, how, text) is called once, from the
 * loop; text (given ones only) is wiped when it returns. The prompt may come
 * from far away: what is not printable in it is shown as '?'. intro, if not
 * NULL, is a line to be shown before it. NULL when memory is short.
 */
pp_question *
pp_ask_put(pp_ask *a, const char *intro, const char *prompt, bool echo,
           void (*answered)(void *ud, pp_answer how, const char *text),
           void *ud);

/* The answer is not wanted any more; answered is not called. NULL is fine. */
void pp_ask_drop(pp_question *q);

/* Show a line at the terminal, if there is one and nothing is being asked. */
void pp_ask_show(pp_ask *a, const char *text);

/* Answer all questions with PP_ANSWER_CANCELLED, from the loop's next turn. */
void pp_ask_cancel(pp_ask *a);

/* Overwrite memory; not optimized away. */
void pp_wipe(void *p, size_t n);

/*
 * The program as ssh's SSH_ASKPASS: hands ssh's question to the program that
 * started ssh, through ssh's own stderr, and its answer to ssh. Returns -1 when
 * the program was not started for that, else what main is to return. To be
 * called first of all in main.
 */
int pp_askpass_main(int argc, char **argv);

/* In the environment of ssh: says that, and is a word that marks the lines. */
#define PP_ASKPASS_VARIABLE "PPSH_ASKPASS"

#endif
