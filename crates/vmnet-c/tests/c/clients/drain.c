/*
 * In the manner of vmnet-helper: every option is said, also those that are off; the parameters are walked through and printed;
 * the callback drains with 128 packets a read, and hands the same buffers on without looking at vm_pkt_size. A second
 * queue reads a socket, and writes whole batches.
 *
 *   drain                a conversation
 *   drain ADDRESS        a start that fails: exit() inside the handler
 */
#include <sys/socket.h>
#include <uuid/uuid.h>

#include "../client.h"
#include "../conversation.h"

enum { BATCH = 128 };

static interface_ref interface;
static int sockets[2]; /* ours, the guest's */
static uint8_t bytes[BATCH][2048], outgoing[BATCH][2048];
static size_t longest;

static void drain(void) {
    struct vmpktdesc packets[BATCH];
    struct iovec iov[BATCH];
    int count;
    do {
        for (int i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){bytes[i], longest};
            packets[i] = (struct vmpktdesc){longest, &iov[i], 1, 0};
        }
        count = BATCH;
        CHECK(vmnet_read(interface, packets, &count) == VMNET_SUCCESS);
        for (int i = 0; i < count; i++) {
            struct msghdr message = {.msg_iov = &iov[i], .msg_iovlen = 1};
            CHECK(sendmsg(sockets[0], &message, 0) == (ssize_t)packets[i].vm_pkt_size);
        }
    } while (count > 0);
}

/* Guest to network, until the guest's end is closed. */
static void forward(void) {
    for (;;) {
        struct vmpktdesc packets[BATCH];
        struct iovec iov[BATCH];
        int count = 0;
        for (; count < BATCH; count++) {
            ssize_t length = recv(sockets[0], outgoing[count], sizeof outgoing[count], count ? MSG_DONTWAIT : 0);
            if (length == 0 && count == 0) return;
            if (length <= 0) break;
            iov[count] = (struct iovec){outgoing[count], (size_t)length};
            packets[count] = (struct vmpktdesc){(size_t)length, &iov[count], 1, 0};
        }
        int written = count;
        CHECK(vmnet_write(interface, packets, &written) == VMNET_SUCCESS && written == count);
    }
}

static void send_frame(const uint8_t *frame, size_t length) {
    CHECK(send(sockets[1], frame, length, 0) == (ssize_t)length);
}

static void *guest(void *nothing) {
    static uint8_t frame[2048];
    ssize_t length;
    while ((length = recv(sockets[1], frame, sizeof frame, 0)) > 0) arrived(frame, (size_t)length);
    return nothing;
}

static void print(xpc_object_t parameters) {
    __block unsigned known = 0;
    CHECK(xpc_dictionary_apply(parameters, ^bool(const char *key, xpc_object_t value) {
        xpc_type_t type = xpc_get_type(value);
        char text[37];
        known++;
        if (type == XPC_TYPE_UINT64) {
            printf("%s: %lu\n", key, xpc_uint64_get_value(value));
        } else if (type == XPC_TYPE_STRING) {
            printf("%s: %s\n", key, xpc_string_get_string_ptr(value));
        } else if (type == XPC_TYPE_UUID) {
            uuid_unparse(xpc_uuid_get_bytes(value), text);
            printf("%s: %s\n", key, text);
        } else {
            known = 1000;
        }
        return true;
    }));
    /* All that a shared network says, and nothing else. */
    CHECK(known == 10);
}

int main(int argc, char **argv) {
    dispatch_queue_t host = dispatch_queue_create("host", DISPATCH_QUEUE_SERIAL);
    dispatch_queue_t from_guest = dispatch_queue_create("guest", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = xpc_dictionary_create_empty();
    uuid_t id;
    CHECK(uuid_parse("2835E074-9892-4A79-AFFB-7E41D2605678", id) == 0);
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, VMNET_SHARED_MODE);
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, false);
    xpc_dictionary_set_bool(desc, vmnet_enable_checksum_offload_key, false);
    xpc_dictionary_set_bool(desc, vmnet_enable_isolation_key, false);
    if (argc > 1) {
        xpc_dictionary_set_string(desc, vmnet_start_address_key, argv[1]);
        xpc_dictionary_set_string(desc, vmnet_end_address_key, argv[1]);
        xpc_dictionary_set_string(desc, vmnet_subnet_mask_key, "255.255.255.0");
    }
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    __block size_t size = 0;
    __block xpc_object_t parameters = NULL;
    interface = vmnet_start_interface(desc, host, ^(vmnet_return_t status, xpc_object_t param) {
        if (status != VMNET_SUCCESS) {
            CHECK(param == NULL);
            fprintf(stderr, "status %u\n", status);
            exit(42);
        }
        print(param);
        parameters = xpc_retain(param);
        size = xpc_dictionary_get_uint64(param, vmnet_max_packet_size_key);
        dispatch_semaphore_signal(done);
    });
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    xpc_release(desc);
    longest = size;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0);
    int room = 4 << 20;
    setsockopt(sockets[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);

    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, host,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)mask;
                                                 (void)event;
                                                 drain();
                                             }) == VMNET_SUCCESS);
    dispatch_semaphore_t read_all = dispatch_semaphore_create(0);
    dispatch_async(from_guest, ^{
        forward();
        dispatch_semaphore_signal(read_all);
    });
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, guest, NULL) == 0);
    speak_as(xpc_dictionary_get_string(parameters, vmnet_mac_address_key));
    converse(send_frame, xpc_dictionary_get_string(parameters, vmnet_start_address_key), NULL, 700);

    shutdown(sockets[1], SHUT_WR);
    dispatch_semaphore_wait(read_all, DISPATCH_TIME_FOREVER);
    stop(interface, host);
    close(sockets[0]);
    pthread_join(thread, NULL);
    close(sockets[1]);
    xpc_release(parameters);
    dispatch_release(done);
    dispatch_release(read_all);
    dispatch_release(host);
    dispatch_release(from_guest);
    return 0;
}
