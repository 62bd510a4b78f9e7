/*
 * The part of XPC that programs of vmnet use. It is in libvmnet.
 *
 * Functions that create or copy give a reference, which the caller releases. Functions that get do not: what they give
 * stays with its container, as long as the container holds it. Getters of a type give 0, false, NULL or -1 of a value
 * that is missing or of another type; they do not convert. NULL objects are taken everywhere.
 *
 * What takes a block is declared where the compiler knows blocks (clang -fblocks). Each such function has a twin, whose
 * name ends in _f, that takes a context and a function and means the same.
 */
#ifndef VMNET_XPC_H
#define VMNET_XPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmnet/compiler.h>

#if __has_include(<dispatch/dispatch.h>)
#include <dispatch/dispatch.h>
#else
typedef struct dispatch_queue_s *dispatch_queue_t;
#endif

VMNET_BEGIN_DECLS

/* As <uuid/uuid.h> has it. */
typedef unsigned char uuid_t[16];

typedef void *xpc_object_t;
typedef const struct _xpc_type_s *xpc_type_t;
typedef xpc_object_t xpc_connection_t;
typedef xpc_object_t xpc_endpoint_t;

/* Types, to be compared with what xpc_get_type gives. */

extern const struct _xpc_type_s _xpc_type_array;
extern const struct _xpc_type_s _xpc_type_bool;
extern const struct _xpc_type_s _xpc_type_connection;
extern const struct _xpc_type_s _xpc_type_data;
extern const struct _xpc_type_s _xpc_type_date;
extern const struct _xpc_type_s _xpc_type_dictionary;
extern const struct _xpc_type_s _xpc_type_double;
extern const struct _xpc_type_s _xpc_type_endpoint;
extern const struct _xpc_type_s _xpc_type_error;
extern const struct _xpc_type_s _xpc_type_fd;
extern const struct _xpc_type_s _xpc_type_int64;
extern const struct _xpc_type_s _xpc_type_null;
extern const struct _xpc_type_s _xpc_type_string;
extern const struct _xpc_type_s _xpc_type_uint64;
extern const struct _xpc_type_s _xpc_type_uuid;

#define XPC_TYPE_ARRAY (&_xpc_type_array)
#define XPC_TYPE_BOOL (&_xpc_type_bool)
#define XPC_TYPE_CONNECTION (&_xpc_type_connection)
#define XPC_TYPE_DATA (&_xpc_type_data)
#define XPC_TYPE_DATE (&_xpc_type_date)
#define XPC_TYPE_DICTIONARY (&_xpc_type_dictionary)
#define XPC_TYPE_DOUBLE (&_xpc_type_double)
#define XPC_TYPE_ENDPOINT (&_xpc_type_endpoint)
#define XPC_TYPE_ERROR (&_xpc_type_error)
#define XPC_TYPE_FD (&_xpc_type_fd)
#define XPC_TYPE_INT64 (&_xpc_type_int64)
#define XPC_TYPE_NULL (&_xpc_type_null)
#define XPC_TYPE_STRING (&_xpc_type_string)
#define XPC_TYPE_UINT64 (&_xpc_type_uint64)
#define XPC_TYPE_UUID (&_xpc_type_uuid)

/* Objects that are always there. */

extern struct _xpc_head_s _xpc_bool_true;
extern struct _xpc_head_s _xpc_bool_false;
extern struct _xpc_head_s _xpc_error_connection_interrupted;
extern struct _xpc_head_s _xpc_error_connection_invalid;
extern struct _xpc_head_s _xpc_error_termination_imminent;
extern const char *const _xpc_error_key_description;

#define XPC_BOOL_TRUE ((xpc_object_t)&_xpc_bool_true)
#define XPC_BOOL_FALSE ((xpc_object_t)&_xpc_bool_false)
/* The service has gone; the next message finds it again, if it is back. */
#define XPC_ERROR_CONNECTION_INTERRUPTED ((xpc_object_t)&_xpc_error_connection_interrupted)
/* The connection is of no more use. */
#define XPC_ERROR_CONNECTION_INVALID ((xpc_object_t)&_xpc_error_connection_invalid)
#define XPC_ERROR_TERMINATION_IMMINENT ((xpc_object_t)&_xpc_error_termination_imminent)
/* The name of the string in an error that says what it is. */
#define XPC_ERROR_KEY_DESCRIPTION _xpc_error_key_description

/* All objects. */

xpc_object_t xpc_retain(xpc_object_t object);
void xpc_release(xpc_object_t object);
xpc_type_t xpc_get_type(xpc_object_t object);
const char *xpc_type_get_name(xpc_type_t type);
bool xpc_equal(xpc_object_t object1, xpc_object_t object2);
size_t xpc_hash(xpc_object_t object);
xpc_object_t xpc_copy(xpc_object_t object);
/* Text for people, to be freed. */
char *xpc_copy_description(xpc_object_t object);

/* Objects of one value. */

xpc_object_t xpc_null_create(void);
xpc_object_t xpc_bool_create(bool value);
bool xpc_bool_get_value(xpc_object_t object);
xpc_object_t xpc_int64_create(int64_t value);
int64_t xpc_int64_get_value(xpc_object_t object);
xpc_object_t xpc_uint64_create(uint64_t value);
uint64_t xpc_uint64_get_value(xpc_object_t object);
xpc_object_t xpc_double_create(double value);
double xpc_double_get_value(xpc_object_t object);
xpc_object_t xpc_date_create(int64_t nanoseconds);
xpc_object_t xpc_date_create_from_current(void);
int64_t xpc_date_get_value(xpc_object_t object);
xpc_object_t xpc_data_create(const void *bytes, size_t length);
size_t xpc_data_get_length(xpc_object_t object);
const void *xpc_data_get_bytes_ptr(xpc_object_t object);
size_t xpc_data_get_bytes(xpc_object_t object, void *buffer, size_t offset, size_t length);
xpc_object_t xpc_string_create(const char *string);
size_t xpc_string_get_length(xpc_object_t object);
const char *xpc_string_get_string_ptr(xpc_object_t object);
xpc_object_t xpc_uuid_create(const uuid_t uuid);
const uint8_t *xpc_uuid_get_bytes(xpc_object_t object);
/* It has a descriptor of its own, and so has who calls xpc_fd_dup. */
xpc_object_t xpc_fd_create(int fd);
int xpc_fd_dup(xpc_object_t object);

/* Arrays. */

#define XPC_ARRAY_APPEND ((size_t)-1)

typedef bool (*xpc_array_applier_function_t)(void *context, size_t index, xpc_object_t value);
#ifdef __BLOCKS__
typedef bool (^xpc_array_applier_t)(size_t index, xpc_object_t value);
bool xpc_array_apply(xpc_object_t array, __attribute__((__noescape__)) xpc_array_applier_t applier);
#endif
bool xpc_array_apply_f(xpc_object_t array, void *context, xpc_array_applier_function_t applier);

xpc_object_t xpc_array_create(const xpc_object_t *objects, size_t count);
xpc_object_t xpc_array_create_empty(void);
size_t xpc_array_get_count(xpc_object_t array);
void xpc_array_append_value(xpc_object_t array, xpc_object_t value);
void xpc_array_set_value(xpc_object_t array, size_t index, xpc_object_t value);
xpc_object_t xpc_array_get_value(xpc_object_t array, size_t index);
void xpc_array_set_bool(xpc_object_t array, size_t index, bool value);
bool xpc_array_get_bool(xpc_object_t array, size_t index);
void xpc_array_set_int64(xpc_object_t array, size_t index, int64_t value);
int64_t xpc_array_get_int64(xpc_object_t array, size_t index);
void xpc_array_set_uint64(xpc_object_t array, size_t index, uint64_t value);
uint64_t xpc_array_get_uint64(xpc_object_t array, size_t index);
void xpc_array_set_double(xpc_object_t array, size_t index, double value);
double xpc_array_get_double(xpc_object_t array, size_t index);
void xpc_array_set_date(xpc_object_t array, size_t index, int64_t nanoseconds);
int64_t xpc_array_get_date(xpc_object_t array, size_t index);
void xpc_array_set_data(xpc_object_t array, size_t index, const void *bytes, size_t length);
const void *xpc_array_get_data(xpc_object_t array, size_t index, size_t *length);
void xpc_array_set_string(xpc_object_t array, size_t index, const char *string);
const char *xpc_array_get_string(xpc_object_t array, size_t index);
void xpc_array_set_uuid(xpc_object_t array, size_t index, const uuid_t uuid);
const uint8_t *xpc_array_get_uuid(xpc_object_t array, size_t index);
void xpc_array_set_fd(xpc_object_t array, size_t index, int fd);
int xpc_array_dup_fd(xpc_object_t array, size_t index);
xpc_object_t xpc_array_get_array(xpc_object_t array, size_t index);
xpc_object_t xpc_array_get_dictionary(xpc_object_t array, size_t index);
void xpc_array_set_connection(xpc_object_t array, size_t index, xpc_connection_t connection);

/* Dictionaries. */

typedef bool (*xpc_dictionary_applier_function_t)(void *context, const char *key, xpc_object_t value);
#ifdef __BLOCKS__
typedef bool (^xpc_dictionary_applier_t)(const char *key, xpc_object_t value);
bool xpc_dictionary_apply(xpc_object_t dictionary, __attribute__((__noescape__)) xpc_dictionary_applier_t applier);
#endif
bool xpc_dictionary_apply_f(xpc_object_t dictionary, void *context, xpc_dictionary_applier_function_t applier);

xpc_object_t xpc_dictionary_create(const char *const *keys, const xpc_object_t *values, size_t count);
xpc_object_t xpc_dictionary_create_empty(void);
xpc_object_t xpc_dictionary_create_reply(xpc_object_t message);
size_t xpc_dictionary_get_count(xpc_object_t dictionary);
xpc_connection_t xpc_dictionary_get_remote_connection(xpc_object_t message);
/* A value of NULL takes the name away. */
void xpc_dictionary_set_value(xpc_object_t dictionary, const char *key, xpc_object_t value);
xpc_object_t xpc_dictionary_get_value(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_bool(xpc_object_t dictionary, const char *key, bool value);
bool xpc_dictionary_get_bool(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_int64(xpc_object_t dictionary, const char *key, int64_t value);
int64_t xpc_dictionary_get_int64(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_uint64(xpc_object_t dictionary, const char *key, uint64_t value);
uint64_t xpc_dictionary_get_uint64(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_double(xpc_object_t dictionary, const char *key, double value);
double xpc_dictionary_get_double(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_date(xpc_object_t dictionary, const char *key, int64_t nanoseconds);
int64_t xpc_dictionary_get_date(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_data(xpc_object_t dictionary, const char *key, const void *bytes, size_t length);
const void *xpc_dictionary_get_data(xpc_object_t dictionary, const char *key, size_t *length);
void xpc_dictionary_set_string(xpc_object_t dictionary, const char *key, const char *string);
const char *xpc_dictionary_get_string(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_uuid(xpc_object_t dictionary, const char *key, const uuid_t uuid);
const uint8_t *xpc_dictionary_get_uuid(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_fd(xpc_object_t dictionary, const char *key, int fd);
int xpc_dictionary_dup_fd(xpc_object_t dictionary, const char *key);
xpc_object_t xpc_dictionary_get_array(xpc_object_t dictionary, const char *key);
xpc_object_t xpc_dictionary_get_dictionary(xpc_object_t dictionary, const char *key);
void xpc_dictionary_set_connection(xpc_object_t dictionary, const char *key, xpc_connection_t connection);
xpc_connection_t xpc_dictionary_create_connection(xpc_object_t dictionary, const char *key);

/*
 * Connections. A service NAME is the socket $XDG_RUNTIME_DIR/vmnet/xpc/NAME. Events come one after the other, on the
 * connection's queue, or on any thread without one. A message has at most 16 MiB, and 64 descriptors; one that cannot be
 * sent makes its connection invalid.
 */

#define XPC_CONNECTION_MACH_SERVICE_LISTENER (1ull << 0)
#define XPC_CONNECTION_MACH_SERVICE_PRIVILEGED (1ull << 1)

typedef void (*xpc_handler_function_t)(void *context, xpc_object_t object);
#ifdef __BLOCKS__
typedef void (^xpc_handler_t)(xpc_object_t object);
void xpc_connection_set_event_handler(xpc_connection_t connection, xpc_handler_t handler);
void xpc_connection_send_message_with_reply(xpc_connection_t connection, xpc_object_t message,
                                            dispatch_queue_t queue, xpc_handler_t handler);
#endif
void xpc_connection_set_event_handler_f(xpc_connection_t connection, void *context, xpc_handler_function_t handler);
void xpc_connection_send_message_with_reply_f(xpc_connection_t connection, xpc_object_t message,
                                              dispatch_queue_t queue, void *context,
                                              xpc_handler_function_t handler);

xpc_connection_t xpc_connection_create(const char *name, dispatch_queue_t targetq);
xpc_connection_t xpc_connection_create_mach_service(const char *name, dispatch_queue_t targetq, uint64_t flags);
xpc_connection_t xpc_connection_create_from_endpoint(xpc_endpoint_t endpoint);
xpc_endpoint_t xpc_endpoint_create(xpc_connection_t listener);
void xpc_connection_set_target_queue(xpc_connection_t connection, dispatch_queue_t targetq);
void xpc_connection_resume(xpc_connection_t connection);
void xpc_connection_activate(xpc_connection_t connection);
void xpc_connection_suspend(xpc_connection_t connection);
void xpc_connection_cancel(xpc_connection_t connection);
void xpc_connection_send_message(xpc_connection_t connection, xpc_object_t message);
xpc_object_t xpc_connection_send_message_with_reply_sync(xpc_connection_t connection, xpc_object_t message);
const char *xpc_connection_get_name(xpc_connection_t connection);
pid_t xpc_connection_get_pid(xpc_connection_t connection);
uid_t xpc_connection_get_euid(xpc_connection_t connection);
gid_t xpc_connection_get_egid(xpc_connection_t connection);

void xpc_transaction_begin(void);
void xpc_transaction_end(void);

VMNET_END_DECLS

#endif
