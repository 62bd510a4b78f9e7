/* Programs for macOS include this by name. */
#ifndef VMNET_AVAILABILITYMACROS_H
#define VMNET_AVAILABILITYMACROS_H

#include <os/availability.h>

#endif
