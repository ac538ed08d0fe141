/* SPDX-License-Identifier: MIT */
/*
 * top: the live table of hosts and workers, laid out by pp.shell.top in a Lua
 * state of its own, since it is drawn by whichever thread runs the loop, also
 * while the script's own state is busy. meter.c puts it on the terminal.
 */
#ifndef PP_TOP_H
#define PP_TOP_H

#include "engine.h"

/* For pp_meter.table: the lines of the table as it is now, each ended by a
 * newline, and how many columns each takes; how many there are, or negative
 * (PP_ENOMEM, PP_EBAD). The lock held. */
int pp_top_lines(pp_engine *e, int64_t now, int width, int height, pp_buf *out,
                 uint16_t *widths);

#endif
