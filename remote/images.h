/* SPDX-License-Identifier: MIT */
/* images: the agents that this program carries along. */
#ifndef PP_IMAGES_H
#define PP_IMAGES_H

#include "bootstrap.h"

extern const pp_agent_image pp_agent_images[];
extern const size_t pp_agent_nimages;

#endif
