/*
 * Starting and stopping, as most programs do it: the handler signals a semaphore that the program waits at. With blocks
 * where the compiler has them, else by the twins that take functions.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <unistd.h>
#include <vmnet/vmnet.h>

#include "check.h"

/* What a start gave. The parameters are retained, also where there are none. */
struct started {
    interface_ref interface;
    vmnet_return_t status;
    xpc_object_t parameters;
};

#ifdef __BLOCKS__

static inline struct started start_on(vmnet_network_ref network, xpc_object_t desc, dispatch_queue_t queue) {
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    __block vmnet_return_t status = 0;
    __block xpc_object_t parameters = NULL;
    vmnet_start_interface_completion_handler_t handler = ^(vmnet_return_t result, xpc_object_t _Nullable param) {
        CHECK(status == 0);
        status = result;
        parameters = xpc_retain(param);
        dispatch_semaphore_signal(done);
    };
    interface_ref interface = network != NULL ? vmnet_interface_start_with_network(network, desc, queue, handler)
                                              : vmnet_start_interface(desc, queue, handler);
    CHECK(interface != NULL);
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    dispatch_release(done);
    return (struct started){interface, status, parameters};
}

static inline void stop(interface_ref interface, dispatch_queue_t queue) {
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    __block vmnet_return_t status = 0;
    CHECK(vmnet_stop_interface(interface, queue, ^(vmnet_return_t result) {
              CHECK(status == 0);
              status = result;
              dispatch_semaphore_signal(done);
          }) == VMNET_SUCCESS);
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    dispatch_release(done);
    CHECK(status == VMNET_SUCCESS);
}

#else

struct waiting {
    dispatch_semaphore_t done;
    vmnet_return_t status;
    xpc_object_t parameters;
};

static inline void on_started(void *context, vmnet_return_t status, xpc_object_t parameters) {
    struct waiting *waiting = context;
    CHECK(waiting->status == 0);
    waiting->status = status;
    waiting->parameters = xpc_retain(parameters);
    dispatch_semaphore_signal(waiting->done);
}

static inline struct started start_on(vmnet_network_ref network, xpc_object_t desc, dispatch_queue_t queue) {
    struct waiting waiting = {dispatch_semaphore_create(0), 0, NULL};
    interface_ref interface = network != NULL
                                  ? vmnet_interface_start_with_network_f(network, desc, queue, &waiting, on_started)
                                  : vmnet_start_interface_f(desc, queue, &waiting, on_started);
    CHECK(interface != NULL);
    dispatch_semaphore_wait(waiting.done, DISPATCH_TIME_FOREVER);
    dispatch_release(waiting.done);
    return (struct started){interface, waiting.status, waiting.parameters};
}

static inline void on_stopped(void *context, vmnet_return_t status) {
    struct waiting *waiting = context;
    CHECK(waiting->status == 0);
    waiting->status = status;
    dispatch_semaphore_signal(waiting->done);
}

static inline void stop(interface_ref interface, dispatch_queue_t queue) {
    struct waiting waiting = {dispatch_semaphore_create(0), 0, NULL};
    CHECK(vmnet_stop_interface_f(interface, queue, &waiting, on_stopped) == VMNET_SUCCESS);
    dispatch_semaphore_wait(waiting.done, DISPATCH_TIME_FOREVER);
    dispatch_release(waiting.done);
    CHECK(waiting.status == VMNET_SUCCESS);
}

#endif

/* A description of this mode, and nothing more. */
static inline xpc_object_t description(operating_modes_t mode) {
    xpc_object_t desc = xpc_dictionary_create(NULL, NULL, 0);
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, mode);
    return desc;
}

/* Starts, and it works. The description is released. */
static inline struct started started(xpc_object_t desc, dispatch_queue_t queue) {
    struct started it = start_on(NULL, desc, queue);
    xpc_release(desc);
    CHECK(it.status == VMNET_SUCCESS && it.parameters != NULL);
    return it;
}

/* Writes one packet of one buffer, as most clients do. */
static inline void write_one(interface_ref interface, const void *frame, size_t length) {
    struct iovec iov = {(void *)frame, length};
    struct vmpktdesc packet = {.vm_pkt_size = length, .vm_pkt_iov = &iov, .vm_pkt_iovcnt = 1, .vm_flags = 0};
    int count = 1;
    CHECK(vmnet_write(interface, &packet, &count) == VMNET_SUCCESS && count == 1);
}

#endif
