/* SPDX-License-Identifier: MIT */
/*
 * report: the page that tells of a run (--report): pp.shell.report makes it of
 * the tally, in a Lua state of its own, since the script's may be anywhere when
 * the program ends.
 */
#ifndef PP_REPORT_H
#define PP_REPORT_H

#include "trace.h"

/* Write the page of t's tally into its file. False after a line on stderr. */
bool pp_report_write(pp_trace *t);
/* Do two descriptors lead to the same regular file? */
bool pp_report_same(int a, int b);

#endif
