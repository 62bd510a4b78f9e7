/* XPC objects: types by address, getters that do not convert, references, containers. */
#include <vmnet/vmnet.h>

#include <fcntl.h>
#include <unistd.h>

#include "check.h"

static bool count_f(void *context, const char *key, xpc_object_t value) {
    CHECK(key != NULL && value != NULL);
    return ++*(int *)context < 3;
}

static bool sum_f(void *context, size_t index, xpc_object_t value) {
    *(int64_t *)context += (int64_t)index * xpc_int64_get_value(value);
    return true;
}

static void scalars(void) {
    xpc_object_t number = xpc_uint64_create(1500);
    CHECK(xpc_get_type(number) == XPC_TYPE_UINT64);
    CHECK(xpc_uint64_get_value(number) == 1500);
    CHECK(xpc_int64_get_value(number) == 0);
    CHECK(xpc_string_get_string_ptr(number) == NULL);
    xpc_retain(number);
    xpc_release(number);
    xpc_release(number);

    CHECK(xpc_bool_create(true) == XPC_BOOL_TRUE);
    CHECK(xpc_bool_create(false) == XPC_BOOL_FALSE);
    CHECK(xpc_get_type(XPC_BOOL_TRUE) == XPC_TYPE_BOOL);
    CHECK(xpc_bool_get_value(XPC_BOOL_TRUE) && !xpc_bool_get_value(XPC_BOOL_FALSE));
    xpc_release(XPC_BOOL_TRUE);
    CHECK(xpc_bool_get_value(XPC_BOOL_TRUE));

    xpc_object_t text = xpc_string_create("192.168.64.1");
    CHECK(xpc_string_get_length(text) == 12);
    CHECK(strcmp(xpc_string_get_string_ptr(text), "192.168.64.1") == 0);
    CHECK(strcmp(xpc_type_get_name(xpc_get_type(text)), "string") == 0);
    xpc_release(text);

    const uuid_t id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    xpc_object_t uuid = xpc_uuid_create(id);
    CHECK(memcmp(xpc_uuid_get_bytes(uuid), id, 16) == 0);
    xpc_release(uuid);

    xpc_object_t data = xpc_data_create("0123456789", 10);
    char some[4] = {0};
    CHECK(xpc_data_get_bytes(data, some, 8, 4) == 2 && memcmp(some, "89", 3) == 0);
    CHECK(xpc_data_get_bytes(data, some, 11, 4) == 0);
    CHECK(xpc_data_get_length(data) == 10);
    xpc_release(data);

    xpc_object_t nothing = xpc_null_create();
    CHECK(xpc_get_type(nothing) == XPC_TYPE_NULL);
    xpc_release(nothing);

    xpc_object_t fraction = xpc_double_create(0.5), date = xpc_date_create(-5);
    CHECK(xpc_double_get_value(fraction) == 0.5 && xpc_date_get_value(date) == -5);
    CHECK(xpc_double_get_value(date) == 0.0);
    xpc_release(fraction);
    xpc_release(date);
}

static void null_is_taken(void) {
    CHECK(xpc_retain(NULL) == NULL);
    xpc_release(NULL);
    CHECK(xpc_get_type(NULL) == NULL);
    CHECK(xpc_array_get_count(NULL) == 0 && xpc_dictionary_get_count(NULL) == 0);
    CHECK(xpc_array_get_string(NULL, 0) == NULL);
    CHECK(xpc_dictionary_get_string(NULL, "x") == NULL);
    CHECK(xpc_dictionary_get_uint64(NULL, NULL) == 0);
    CHECK(!xpc_dictionary_apply_f(NULL, NULL, count_f));
    CHECK(xpc_copy_description(NULL) == NULL);
    CHECK(xpc_string_create(NULL) == NULL && xpc_fd_create(-1) == NULL && xpc_uuid_create(NULL) == NULL);
    CHECK(xpc_fd_dup(NULL) == -1);
    xpc_dictionary_set_string(NULL, "x", "y");
    CHECK(xpc_equal(NULL, NULL) && !xpc_equal(NULL, XPC_BOOL_TRUE));
    xpc_connection_resume(NULL);
    CHECK(xpc_connection_send_message_with_reply_sync(NULL, NULL) == XPC_ERROR_CONNECTION_INVALID);
}

static void dictionaries(void) {
    xpc_object_t desc = xpc_dictionary_create(NULL, NULL, 0);
    const uuid_t id = {0xff, 1};
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, VMNET_SHARED_MODE);
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, false);
    xpc_dictionary_set_string(desc, vmnet_start_address_key, "192.168.64.1");
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    xpc_dictionary_set_data(desc, "data", "abc", 3);
    CHECK(xpc_dictionary_get_count(desc) == 5);
    CHECK(xpc_dictionary_get_uint64(desc, "vmnet_operation_mode") == 1001);
    CHECK(xpc_dictionary_get_int64(desc, vmnet_operation_mode_key) == 0);
    CHECK(xpc_dictionary_get_value(desc, vmnet_enable_tso_key) == XPC_BOOL_FALSE);
    CHECK(xpc_dictionary_get_uuid(desc, vmnet_interface_id_key)[0] == 0xff);
    CHECK(xpc_dictionary_get_uuid(desc, vmnet_start_address_key) == NULL);
    size_t length = 7;
    CHECK(memcmp(xpc_dictionary_get_data(desc, "data", &length), "abc", 3) == 0 && length == 3);
    CHECK(xpc_dictionary_get_data(desc, "missing", &length) == NULL && length == 0);

    int visited = 0;
    CHECK(!xpc_dictionary_apply_f(desc, &visited, count_f) && visited == 3);
#ifdef __BLOCKS__
    __block size_t all = 0;
    CHECK(xpc_dictionary_apply(desc, ^(const char *key, xpc_object_t value) {
        /* What is visited may be changed meanwhile. */
        xpc_dictionary_set_value(desc, "data", NULL);
        all += key != NULL && value != NULL;
        return (bool)true;
    }));
    CHECK(all == 5 && xpc_dictionary_get_count(desc) == 4);
#endif
    xpc_dictionary_set_value(desc, "data", NULL);

    xpc_object_t outer = xpc_dictionary_create_empty();
    xpc_dictionary_set_value(outer, "inner", desc);
    xpc_object_t copy = xpc_copy(outer);
    CHECK(xpc_equal(outer, copy) && xpc_hash(outer) == xpc_hash(copy));
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, true);
    CHECK(!xpc_equal(outer, copy));
    xpc_release(desc);
    CHECK(xpc_dictionary_get_dictionary(outer, "inner") == desc);
    CHECK(xpc_dictionary_get_array(outer, "inner") == NULL);

    char *text = xpc_copy_description(outer);
    CHECK(strstr(text, "\"vmnet_start_address\" => <string: ") != NULL);
    CHECK(strstr(text, "<uint64: ") != NULL && strstr(text, ">: 1001") != NULL);
    free(text);
    xpc_release(copy);
    xpc_release(outer);
}

static void arrays(void) {
    xpc_object_t numbers[3] = {xpc_int64_create(5), xpc_int64_create(6), xpc_int64_create(7)};
    xpc_object_t array = xpc_array_create(numbers, 3);
    for (int i = 0; i < 3; i++) xpc_release(numbers[i]);
    int64_t sum = 0;
    CHECK(xpc_array_apply_f(array, &sum, sum_f) && sum == 20);
#ifdef __BLOCKS__
    CHECK(!xpc_array_apply(array, ^(size_t index, xpc_object_t value) {
        CHECK(xpc_int64_get_value(value) == 5 + (int64_t)index);
        return (bool)(index < 1);
    }));
#endif
    xpc_array_set_string(array, XPC_ARRAY_APPEND, "en0");
    xpc_array_set_string(array, 99, "beyond the end");
    xpc_array_append_value(array, XPC_BOOL_TRUE);
    CHECK(xpc_array_get_count(array) == 5);
    CHECK(strcmp(xpc_array_get_string(array, 3), "en0") == 0);
    CHECK(xpc_array_get_string(array, 0) == NULL && xpc_array_get_value(array, 5) == NULL);
    CHECK(xpc_array_get_bool(array, 4));
    xpc_release(array);
}

static void descriptors(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    xpc_object_t dictionary = xpc_dictionary_create_empty();
    xpc_dictionary_set_fd(dictionary, "fd", ends[1]);
    close(ends[1]);
    int copy = xpc_dictionary_dup_fd(dictionary, "fd");
    CHECK(copy >= 0 && write(copy, "x", 1) == 1);
    close(copy);
    xpc_release(dictionary);
    char bytes[2];
    CHECK(read(ends[0], bytes, 2) == 1 && read(ends[0], bytes, 2) == 0);
    close(ends[0]);
}

static void errors(void) {
    xpc_object_t error = XPC_ERROR_CONNECTION_INVALID;
    CHECK(xpc_get_type(error) == XPC_TYPE_ERROR);
    CHECK(strcmp(xpc_dictionary_get_string(error, XPC_ERROR_KEY_DESCRIPTION), "Connection invalid") == 0);
    CHECK(xpc_dictionary_get_string(XPC_ERROR_CONNECTION_INTERRUPTED, XPC_ERROR_KEY_DESCRIPTION) != NULL);
    CHECK(XPC_ERROR_CONNECTION_INTERRUPTED != error && !xpc_equal(XPC_ERROR_CONNECTION_INTERRUPTED, error));
    xpc_dictionary_set_bool(error, "changed", true);
    CHECK(xpc_dictionary_get_count(error) == 1);
    xpc_release(error);
    CHECK(xpc_get_type(error) == XPC_TYPE_ERROR);
}

int main(void) {
    scalars();
    null_is_taken();
    dictionaries();
    arrays();
    descriptors();
    errors();
    return 0;
}
