/*
 * What headers written for macOS ask of a compiler, for the compilers of Linux.
 *
 * Everything here is left alone where the compiler or another header has it already.
 */
#ifndef VMNET_COMPILER_H
#define VMNET_COMPILER_H

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#ifndef __has_extension
#define __has_extension(extension) __has_feature(extension)
#endif
#ifndef __has_attribute
#define __has_attribute(attribute) 0
#endif
#ifndef __has_include
#define __has_include(header) 0
#endif

/* Whether a pointer may be null: only clang wants to know. */
#if !defined(__clang__)
#ifndef _Nullable
#define _Nullable
#endif
#ifndef _Nonnull
#define _Nonnull
#endif
#ifndef _Null_unspecified
#define _Null_unspecified
#endif
#endif
#ifndef __nullable
#define __nullable _Nullable
#endif
#ifndef __nonnull_ptr
#define __nonnull_ptr _Nonnull
#endif

#if defined(__clang__) && __has_feature(assume_nonnull)
#define VMNET_ASSUME_NONNULL_BEGIN _Pragma("clang assume_nonnull begin")
#define VMNET_ASSUME_NONNULL_END _Pragma("clang assume_nonnull end")
#else
#define VMNET_ASSUME_NONNULL_BEGIN
#define VMNET_ASSUME_NONNULL_END
#endif

/* Enumerations of 32 bits. Where the language has no such thing, the type is a number and the constants stand alone. */
#if defined(__cplusplus) || (defined(__clang__) && __has_extension(cxx_strong_enums))
#define VMNET_ENUM_BEGIN(name) typedef enum VMNET_ENUM_ATTRIBUTES name : uint32_t
#define VMNET_ENUM_END(name) name
#if defined(__clang__) && __has_attribute(enum_extensibility)
#define VMNET_ENUM_ATTRIBUTES __attribute__((__enum_extensibility__(closed)))
#else
#define VMNET_ENUM_ATTRIBUTES
#endif
#else
#define VMNET_ENUM_BEGIN(name) \
    typedef uint32_t name;     \
    enum
#define VMNET_ENUM_END(name)
#endif

#ifndef CF_RETURNS_RETAINED
#if defined(__clang__) && __has_attribute(cf_returns_retained)
#define CF_RETURNS_RETAINED __attribute__((__cf_returns_retained__))
#else
#define CF_RETURNS_RETAINED
#endif
#endif

#if defined(__GNUC__)
#define VMNET_DEPRECATED(message) __attribute__((__deprecated__(message)))
#else
#define VMNET_DEPRECATED(message)
#endif

#ifdef __cplusplus
#define VMNET_BEGIN_DECLS extern "C" {
#define VMNET_END_DECLS }
#else
#define VMNET_BEGIN_DECLS
#define VMNET_END_DECLS
#endif

#endif
