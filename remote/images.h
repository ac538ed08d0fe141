/* SPDX-License-Identifier: MIT */
/* images: the agents that this program carries along, by machine as uname(1)
 * names it; the last one has no machine. */
#ifndef PP_IMAGES_H
#define PP_IMAGES_H

#include <stddef.h>

typedef struct pp_image {
  const char *machine;
  const char *hash;                  /* of the file: 32 hexadecimal digits */
  size_t size;                       /* of the file */
  const unsigned char *packed, *end; /* the file, by gzip */
} pp_image;

extern const pp_image pp_images[];

#endif
