/*
 * In the manner of softnet, which is Rust: the callback is on a global, concurrent queue, says by a socket that there is
 * something, and blocks until the reader has drained. Callbacks never overlap. The block is given away at once, and the
 * parameters are retained, also when there are none.
 */
#include <poll.h>
#include <sys/socket.h>

#include "../client.h"
#include "../conversation.h"

enum { MOST = 256 };

static interface_ref interface;
static int signals[2];
static dispatch_semaphore_t drained;
static int running;
static bool over;
static struct vmpktdesc packets[MOST];
static struct iovec iov[MOST];
static size_t longest;

static int read_all(void) {
    for (int i = 0; i < MOST; i++) {
        iov[i].iov_len = longest;
        packets[i] = (struct vmpktdesc){longest, &iov[i], 1, 0};
    }
    int count = MOST;
    CHECK(vmnet_read(interface, packets, &count) == VMNET_SUCCESS);
    return count;
}

static void *reader(void *nothing) {
    char one;
    while (recv(signals[1], &one, 1, 0) == 1 && !__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        for (int count; (count = read_all()) > 0;) {
            for (int i = 0; i < count; i++) arrived(iov[i].iov_base, packets[i].vm_pkt_size);
        }
        dispatch_semaphore_signal(drained);
    }
    return nothing;
}

static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

/* 256 frames in batches of 1, 1, 2, 4 ... 128 are one read, in order: the queue is deep. */
static void batches(dispatch_queue_t queue, const char *address) {
    struct started ends[2];
    for (int i = 0; i < 2; i++) {
        xpc_object_t desc = description(VMNET_HOST_MODE);
        xpc_dictionary_set_string(desc, vmnet_start_address_key, address);
        xpc_dictionary_set_string(desc, vmnet_end_address_key, "192.168.151.254");
        xpc_dictionary_set_string(desc, vmnet_subnet_mask_key, "255.255.255.0");
        ends[i] = started(desc, queue);
    }
    static uint8_t frames[128][60];
    uint32_t sent = 0;
    for (int size = 1, first = 1; sent < 256; size = first ? 1 : size * 2, first = 0) {
        struct vmpktdesc batch[128];
        struct iovec parts[128];
        for (int i = 0; i < size; i++, sent++) {
            /* ARP by name, and rubbish in it. */
            ethernet(frames[i], BROADCAST, talk.mac, TYPE_ARP);
            put32(frames[i] + ETHERNET, sent);
            parts[i] = (struct iovec){frames[i], ETHERNET + 4};
            batch[i] = (struct vmpktdesc){ETHERNET + 4, &parts[i], 1, 0};
        }
        int written = size;
        CHECK(vmnet_write(ends[0].interface, batch, &written) == VMNET_SUCCESS && written == size);
    }
    sleep(1);
    interface = ends[1].interface;
    int all = read_all();
    if (all != 256) fprintf(stderr, "%d packets\n", all);
    CHECK(all == 256);
    for (uint32_t i = 0; i < 256; i++) {
        CHECK(packets[i].vm_pkt_size == ETHERNET + 4 && get32((uint8_t *)iov[i].iov_base + ETHERNET) == i);
    }
    for (int i = 0; i < 2; i++) {
        stop(ends[i].interface, queue);
        xpc_release(ends[i].parameters);
    }
}

/* A shared network speaks by itself soon; a callback that blocks does not keep anybody from clearing it. */
static void blocked(dispatch_queue_t queue) {
    struct started it = started(description(VMNET_SHARED_MODE), queue);
    dispatch_semaphore_t called = dispatch_semaphore_create(0), go_on = dispatch_semaphore_create(0);
    CHECK(vmnet_interface_set_event_callback(it.interface, (interface_event_t)~0u, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)mask;
                                                 (void)event;
                                                 dispatch_semaphore_signal(called);
                                                 dispatch_semaphore_wait(go_on, DISPATCH_TIME_FOREVER);
                                             }) == VMNET_SUCCESS);
    dispatch_semaphore_wait(called, DISPATCH_TIME_FOREVER);
    CHECK(vmnet_interface_set_event_callback(it.interface, (interface_event_t)~0u, NULL, NULL) == VMNET_SUCCESS);
    dispatch_semaphore_signal(go_on);
    stop(it.interface, queue);
    /* No other began. */
    CHECK(dispatch_semaphore_wait(called, DISPATCH_TIME_NOW) != 0);
    xpc_release(it.parameters);
    dispatch_release(called);
    dispatch_release(go_on);
}

int main(void) {
    dispatch_queue_t queue = dispatch_get_global_queue(0, 0);
    /* No mode: the failure comes by the handler, without parameters. */
    xpc_object_t nothing = xpc_dictionary_create_empty();
    struct started failed = start_on(NULL, nothing, queue);
    CHECK(failed.status == VMNET_INVALID_ARGUMENT && failed.parameters == NULL);
    xpc_release(failed.parameters);
    xpc_release(nothing);

    xpc_object_t desc = description(VMNET_SHARED_MODE);
    xpc_dictionary_set_bool(desc, vmnet_enable_isolation_key, true);
    struct started it = started(desc, queue);
    interface = it.interface;
    longest = xpc_dictionary_get_uint64(it.parameters, vmnet_max_packet_size_key);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_read_max_packets_key) == MOST);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_write_max_packets_key) == MOST);
    for (int i = 0; i < MOST; i++) iov[i].iov_base = malloc(longest);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, signals) == 0);
    drained = dispatch_semaphore_create(0);
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)event;
                                                 CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE);
                                                 CHECK(__atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST) == 1);
                                                 CHECK(write(signals[0], "", 1) == 1);
                                                 dispatch_semaphore_wait(drained, DISPATCH_TIME_FOREVER);
                                                 CHECK(__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST) == 0);
                                             }) == VMNET_SUCCESS);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, reader, NULL) == 0);
    speak_as(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key));
    const char *gateway = xpc_dictionary_get_string(it.parameters, vmnet_start_address_key);
    /* Isolated: the gateway answers, the peer does not hear. */
    converse(send_frame, gateway, NULL, 0);
    uint8_t frame[QUESTION_FRAME];
    question(frame, talk.mac, talk.number, 3, 100);
    send_frame(frame, sizeof frame);
    usleep(200000);
    CHECK(talk.answers == 0);

    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL) == VMNET_SUCCESS);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    CHECK(write(signals[0], "", 1) == 1);
    pthread_join(thread, NULL);
    dispatch_semaphore_signal(drained);
    stop(interface, queue);
    CHECK(running == 0);
    xpc_release(it.parameters);

    batches(queue, "192.168.151.1");
    blocked(queue);
    for (int i = 0; i < MOST; i++) free(iov[i].iov_base);
    close(signals[0]);
    close(signals[1]);
    return 0;
}
