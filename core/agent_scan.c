/* SPDX-License-Identifier: MIT */
/*
 * The C library reads the rules of a time zone (TZ=CET-1CEST,M3.5.0,M10.5.0)
 * with sscanf, and so an agent, whose os.date may be asked for local time,
 * would have all of that function: 78 KB, for numbers of four kinds. This is
 * what tzset needs of it, and nothing else in an agent calls it.
 */
#include <stdarg.h>
#include <stdio.h>

int __isoc99_sscanf(const char *text, const char *format, ...);

/* %hu, %n and what stands for itself. How many numbers were read. */
int __isoc99_sscanf(const char *text, const char *format, ...) {
  const char *p = text;
  int n = 0;
  va_list args;

  va_start(args, format);
  while (*format != '\0') {
    if (format[0] == '%' && format[1] == 'n') {
      *va_arg(args, int *) = (int)(p - text);
      format += 2;
    } else if (format[0] == '%' && format[1] == 'h' && format[2] == 'u') {
      unsigned v = 0;

      while (*p == ' ' || (*p >= '\t' && *p <= '\r'))
        p++;
      if (*p < '0' || *p > '9')
        break;
      for (; *p >= '0' && *p <= '9'; p++)
        v = v * 10 + (unsigned)(*p - '0');
      *va_arg(args, unsigned short *) = (unsigned short)v;
      format += 3;
      n++;
    } else if (*format++ != *p++) {
      break;
    }
  }
  va_end(args);
  return n > 0 || *text != '\0' ? n : EOF;
}
