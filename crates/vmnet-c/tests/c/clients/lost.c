/*
 * The service is killed under a running interface: every call returns, every handler comes, and the interface comes back.
 * It says "ready", and goes on after a line of input, when the service is gone.
 */
#include "../client.h"
#include "../conversation.h"

static interface_ref interface;

static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)mask;
                                                 (void)event;
                                                 static uint8_t bytes[2048];
                                                 struct iovec iov = {bytes, sizeof bytes};
                                                 struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
                                                 int count = 1;
                                                 if (vmnet_read(interface, &packet, &count) != VMNET_SUCCESS) return;
                                                 if (count == 1) arrived(bytes, packet.vm_pkt_size);
                                             }) == VMNET_SUCCESS);
}

/* What is written while there is no service may get lost, as on any network: guests say it again. */
static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

static void speak(struct started it) {
    speak_as(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key));
    converse(send_frame, xpc_dictionary_get_string(it.parameters, vmnet_start_address_key), NULL, 0);
}

int main(void) {
    dispatch_queue_t queue = dispatch_queue_create("lost", DISPATCH_QUEUE_SERIAL);
    struct started it = started(description(VMNET_SHARED_MODE), queue);
    interface = it.interface;
    listen_to_events(queue);
    speak(it);
    puts("ready");
    fflush(stdout);
    (void)getchar();

    uint8_t frame[60] = {0};
    memset(frame, 0xff, 6);
    memcpy(frame + 6, talk.mac, 6);
    /* A code, whichever: it has noticed, or it has not yet, or has already come back. */
    for (int i = 0; i < 300; i++) {
        uint8_t bytes[2048];
        struct iovec out = {frame, sizeof frame}, in = {bytes, sizeof bytes};
        struct vmpktdesc written = {sizeof frame, &out, 1, 0}, read = {sizeof bytes, &in, 1, 0};
        int count = 1;
        vmnet_return_t status = vmnet_write(interface, &written, &count);
        CHECK(status >= VMNET_SUCCESS && status <= VMNET_NOT_AUTHORIZED);
        count = 1;
        status = vmnet_read(interface, &read, &count);
        CHECK(status >= VMNET_SUCCESS && status <= VMNET_NOT_AUTHORIZED);
        usleep(1000);
    }
    /* The guest goes on, as if nothing had been. */
    talk.lease = 0;
    talk.found = talk.pinged = false;
    speak(it);
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    struct in_addr guest = {htonl(talk.ours)};
    vmnet_return_t returned = vmnet_interface_add_ip_port_forwarding_rule(
        interface, IPPROTO_TCP, 18090, AF_INET, &guest, 80, ^(vmnet_return_t status) {
            CHECK(status == VMNET_SUCCESS);
            dispatch_semaphore_signal(done);
        });
    CHECK(returned == VMNET_SUCCESS);
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    dispatch_release(done);
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL) == VMNET_SUCCESS);
    stop(interface, queue);
    xpc_release(it.parameters);

    /* And so does the next one. */
    it = started(description(VMNET_SHARED_MODE), queue);
    interface = it.interface;
    talk.lease = 0;
    talk.found = talk.pinged = false;
    listen_to_events(queue);
    speak(it);
    puts("again");
    fflush(stdout);
    stop(interface, queue);
    xpc_release(it.parameters);
    dispatch_release(queue);
    return 0;
}
