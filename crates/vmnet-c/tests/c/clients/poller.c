/*
 * In the manner of qemu-vmnet: no callback, a loop that reads. This one has no libdispatch either: its handlers run on a
 * thread of the library.
 */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>
#include <vmnet/vmnet.h>

#include "../check.h"
#include "../conversation.h"

static interface_ref interface;
static sem_t done;
static xpc_object_t parameters;
static bool over;

static void on_started(void *context, vmnet_return_t status, xpc_object_t param) {
    CHECK(context == &done && status == VMNET_SUCCESS);
    parameters = xpc_retain(param);
    sem_post(&done);
}

static void on_stopped(void *context, vmnet_return_t status) {
    CHECK(context == &done && status == VMNET_SUCCESS);
    sem_post(&done);
}

static void *poll_for_frames(void *nothing) {
    static uint8_t buffer[1514];
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        struct iovec iov = {buffer, sizeof buffer};
        struct vmpktdesc packet = {sizeof buffer, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) {
            usleep(500);
            continue;
        }
        CHECK(count == 1 && iov.iov_len == packet.vm_pkt_size);
        arrived(buffer, packet.vm_pkt_size);
    }
    return nothing;
}

static void send_frame(const uint8_t *frame, size_t length) {
    struct iovec iov = {(void *)frame, length};
    struct vmpktdesc packet = {length, &iov, 1, 0};
    int count = 1;
    CHECK(vmnet_write(interface, &packet, &count) == VMNET_SUCCESS && count == 1);
}

int main(void) {
    sem_init(&done, 0, 0);
    xpc_object_t desc = xpc_dictionary_create(NULL, NULL, 0);
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, VMNET_SHARED_MODE);
    interface = vmnet_start_interface_f(desc, NULL, &done, on_started);
    CHECK(interface != NULL);
    xpc_release(desc);
    sem_wait(&done);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, poll_for_frames, NULL) == 0);
    speak_as(xpc_dictionary_get_string(parameters, vmnet_mac_address_key));
    converse(send_frame, xpc_dictionary_get_string(parameters, vmnet_start_address_key), NULL, 300);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    CHECK(vmnet_stop_interface_f(interface, NULL, &done, on_stopped) == VMNET_SUCCESS);
    sem_wait(&done);
    xpc_release(parameters);
    return 0;
}
