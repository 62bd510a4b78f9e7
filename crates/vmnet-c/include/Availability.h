/* Programs for macOS include this by name. */
#ifndef VMNET_AVAILABILITY_H
#define VMNET_AVAILABILITY_H

#include <os/availability.h>

#endif
