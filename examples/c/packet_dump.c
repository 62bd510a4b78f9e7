/*
 * Prints what a guest on the network would hear. The source is that of a program for macOS, unchanged: blocks, dispatch,
 * XPC. On Linux clang builds it:
 *
 *   clang -fblocks packet_dump.c -o packet_dump $(pkg-config --cflags --libs vmnet vmnet-dispatch)
 *   ./packet_dump [shared|host] [COUNT]
 */
#include <dispatch/dispatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmnet/vmnet.h>

enum { BATCH = 32 };

static interface_ref interface;
static struct iovec buffers[BATCH];
static size_t longest;
static long left = -1;

static void print(const uint8_t *frame, size_t length) {
    for (int i = 6; i < 12; i++) printf("%02x%s", frame[i], i < 11 ? ":" : " > ");
    for (int i = 0; i < 6; i++) printf("%02x%s", frame[i], i < 5 ? ":" : " ");
    printf("type %02x%02x, %zu bytes\n", frame[12], frame[13], length);
    fflush(stdout);
    if (left > 0 && --left == 0) exit(0);
}

/* Reads until there is nothing more. */
static void drain(void) {
    struct vmpktdesc packets[BATCH];
    int count;
    do {
        for (int i = 0; i < BATCH; i++) {
            buffers[i].iov_len = longest;
            packets[i] = (struct vmpktdesc){.vm_pkt_size = longest, .vm_pkt_iov = &buffers[i], .vm_pkt_iovcnt = 1};
        }
        count = BATCH;
        if (vmnet_read(interface, packets, &count) != VMNET_SUCCESS) {
            fprintf(stderr, "vmnet_read failed\n");
            exit(1);
        }
        for (int i = 0; i < count; i++) print(buffers[i].iov_base, packets[i].vm_pkt_size);
    } while (count > 0);
}

int main(int argc, char **argv) {
    const bool host = argc > 1 && strcmp(argv[1], "host") == 0;
    if (argc > 2) left = atol(argv[2]);
    dispatch_queue_t queue = dispatch_queue_create("packet dump", DISPATCH_QUEUE_SERIAL);
    dispatch_semaphore_t started = dispatch_semaphore_create(0);
    xpc_object_t desc = xpc_dictionary_create(NULL, NULL, 0);
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, host ? VMNET_HOST_MODE : VMNET_SHARED_MODE);
    interface = vmnet_start_interface(desc, queue, ^(vmnet_return_t status, xpc_object_t parameters) {
        if (status != VMNET_SUCCESS) {
            fprintf(stderr, "the interface did not start: status %u (with VMNET_DEBUG=1 it says why)\n", status);
            exit(1);
        }
        fprintf(stderr, "MAC %s, gateway %s\n", xpc_dictionary_get_string(parameters, vmnet_mac_address_key),
                xpc_dictionary_get_string(parameters, vmnet_start_address_key));
        longest = xpc_dictionary_get_uint64(parameters, vmnet_max_packet_size_key);
        dispatch_semaphore_signal(started);
    });
    xpc_release(desc);
    dispatch_semaphore_wait(started, DISPATCH_TIME_FOREVER);
    for (int i = 0; i < BATCH; i++) buffers[i].iov_base = malloc(longest);
    vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                       ^(interface_event_t mask, xpc_object_t event) {
                                           (void)mask;
                                           (void)event;
                                           drain();
                                       });
    dispatch_main();
}
