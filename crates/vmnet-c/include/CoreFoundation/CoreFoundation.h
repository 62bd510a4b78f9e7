/*
 * The part of CoreFoundation that programs of vmnet need: references of networks and configurations.
 *
 * A program that links a CoreFoundation of its own includes that one's header, and may give networks to its CFRetain and
 * CFRelease only if libvmnet comes first.
 */
#ifndef VMNET_CORE_FOUNDATION_H
#define VMNET_CORE_FOUNDATION_H

#include <vmnet/compiler.h>

VMNET_BEGIN_DECLS

typedef const void *CFTypeRef;

CFTypeRef _Nullable CFRetain(CFTypeRef _Nullable object);
void CFRelease(CFTypeRef _Nullable object);

VMNET_END_DECLS

#endif
