/*
 * In the manner of QEMU: the callback only wakes a main loop, which reads once, at most 200 packets, with buffers whose
 * iov_len was set at the beginning and never again. While the machine is paused there is no callback.
 */
#include <poll.h>

#include "../client.h"
#include "../conversation.h"

enum { PACKETS = 200 };

static interface_ref interface;
static dispatch_queue_t queue;
static int wake[2], outgoing[2];
static struct vmpktdesc packets[PACKETS];
static struct iovec buffers[PACKETS];
static size_t longest;
static unsigned events;

static void on_event(interface_event_t mask) {
    CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE);
    __atomic_fetch_add(&events, 1, __ATOMIC_RELAXED);
    CHECK(write(wake[1], "", 1) == 1);
}

#ifdef __BLOCKS__
static vmnet_return_t listen_to_events(bool on) {
    if (!on) return vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL);
    return vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                              ^(interface_event_t mask, xpc_object_t _Nullable event) {
                                                  (void)event;
                                                  on_event(mask);
                                              });
}
#else
static void on_event_f(void *context, interface_event_t mask, xpc_object_t event) {
    CHECK(context == &events);
    (void)event;
    on_event(mask);
}

static vmnet_return_t listen_to_events(bool on) {
    return vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, on ? queue : NULL, &events,
                                                on ? on_event_f : NULL);
}
#endif

/* Once, on the main loop's thread. */
static void bottom_half(void) {
    for (int i = 0; i < PACKETS; i++) {
        packets[i].vm_pkt_size = longest;
        packets[i].vm_pkt_iovcnt = 1;
        packets[i].vm_flags = 0;
    }
    int count = PACKETS;
    CHECK(vmnet_read(interface, packets, &count) == VMNET_SUCCESS);
    for (int i = 0; i < count; i++) {
        CHECK(packets[i].vm_pkt_size >= ETHERNET && packets[i].vm_pkt_size <= longest);
        arrived(buffers[i].iov_base, packets[i].vm_pkt_size);
    }
}

/* What the guest sends goes by the main loop too: one packet in one buffer. */
struct sent {
    size_t length;
    uint8_t frame[DHCP_FRAME];
};

static void send_frame(const uint8_t *frame, size_t length) {
    struct sent sent = {.length = length};
    memcpy(sent.frame, frame, length);
    CHECK(write(outgoing[1], &sent, sizeof sent) == sizeof sent);
}

static bool over;

static void *guest(void *gateway) {
    converse(send_frame, gateway, NULL, 450);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    return NULL;
}

static bool guest_is_done(void) { return __atomic_load_n(&over, __ATOMIC_ACQUIRE); }

static bool all_have_come(void) { return talk.answers == 300; }

static void main_loop(bool (*until)(void)) {
    while (!until()) {
        struct pollfd ready[] = {{.fd = wake[0], .events = POLLIN}, {.fd = outgoing[0], .events = POLLIN}};
        CHECK(poll(ready, 2, 20) >= 0);
        char some[256];
        if (ready[0].revents && read(wake[0], some, sizeof some) > 0) bottom_half();
        struct sent sent;
        if (!ready[1].revents) continue;
        CHECK(read(outgoing[0], &sent, sizeof sent) == sizeof sent);
        write_one(interface, sent.frame, sent.length);
    }
}

/* On a serial queue, whatever was called before has returned when this has. */
static void nothing(void *context) { (void)context; }
static void stop_barrier(void) { dispatch_sync_f(queue, NULL, nothing); }

int main(void) {
    xpc_object_t list = vmnet_copy_shared_interface_list();
    (void)xpc_array_get_count(list);
    xpc_release(list);

    queue = dispatch_queue_create("a guest's network", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = description(VMNET_SHARED_MODE);
    xpc_dictionary_set_bool(desc, vmnet_allocate_mac_address_key, false);
    xpc_dictionary_set_bool(desc, vmnet_enable_isolation_key, false);
    struct started it = started(desc, queue);
    interface = it.interface;
    CHECK(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key) == NULL);
    CHECK(xpc_dictionary_get_uuid(it.parameters, vmnet_interface_id_key) == NULL);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_mtu_key) == 1500);
    longest = xpc_dictionary_get_uint64(it.parameters, vmnet_max_packet_size_key);
    CHECK(longest == 1514);
    CHECK(pipe(wake) == 0 && pipe(outgoing) == 0);
    for (int i = 0; i < PACKETS; i++) {
        buffers[i] = (struct iovec){malloc(longest), longest};
        packets[i].vm_pkt_iov = &buffers[i];
    }
    CHECK(listen_to_events(true) == VMNET_SUCCESS);

    speak_as(NULL);
    pthread_t thread;
    char gateway[INET_ADDRSTRLEN];
    strcpy(gateway, xpc_dictionary_get_string(it.parameters, vmnet_start_address_key));
    CHECK(pthread_create(&thread, NULL, guest, gateway) == 0);
    main_loop(guest_is_done);
    pthread_join(thread, NULL);

    /* The machine is paused: no event comes. What has arrived is seen when it goes on, without new frames. */
    CHECK(listen_to_events(false) == VMNET_SUCCESS);
    stop_barrier();
    unsigned before = __atomic_load_n(&events, __ATOMIC_RELAXED);
    uint8_t frame[QUESTION_FRAME];
    talk.number++;
    talk.answers = 0;
    question(frame, talk.mac, talk.number, 300, (uint32_t)talk.length);
    write_one(interface, frame, sizeof frame);
    usleep(200000);
    CHECK(__atomic_load_n(&events, __ATOMIC_RELAXED) == before);
    CHECK(listen_to_events(true) == VMNET_SUCCESS);
    main_loop(all_have_come);
    CHECK(!talk.strange);

    /* The buffers go as soon as the interface has stopped. */
    CHECK(listen_to_events(false) == VMNET_SUCCESS);
    stop(interface, queue);
    for (int i = 0; i < PACKETS; i++) free(buffers[i].iov_base);
    xpc_release(it.parameters);
    dispatch_release(queue);
    return 0;
}
