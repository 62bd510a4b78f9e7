/*
 * A socket for one QEMU guest: each frame follows its length in four bytes, as -netdev stream has it.
 *
 *   cc qemu_bridge.c -o qemu_bridge $(pkg-config --cflags --libs vmnet) -lpthread
 *   ./qemu_bridge /tmp/net.sock [shared|host]
 *   qemu-system-x86_64 ... -device virtio-net-pci,netdev=n -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/net.sock
 *
 * (`vmnet attach` does the same, for many guests and without this copy.)
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vmnet/vmnet.h>

enum { BATCH = 64 };

static interface_ref interface;
static sem_t event;
static size_t longest;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void on_started(void *context, vmnet_return_t status, xpc_object_t parameters) {
    (void)context;
    if (status != VMNET_SUCCESS) {
        fprintf(stderr, "the interface did not start: status %u (with VMNET_DEBUG=1 it says why)\n", status);
        exit(1);
    }
    longest = xpc_dictionary_get_uint64(parameters, vmnet_max_packet_size_key);
    sem_post(&event);
}

static void on_event(void *context, interface_event_t mask, xpc_object_t details) {
    (void)context;
    (void)mask;
    (void)details;
    sem_post(&event);
}

/* All of it, or the guest is gone. */
static bool take(int guest, void *bytes, size_t count) {
    return recv(guest, bytes, count, MSG_WAITALL) == (ssize_t)count;
}

/* Guest to network. */
static void *forward(void *context) {
    int guest = *(int *)context;
    uint8_t *frame = malloc(longest);
    uint32_t length;
    while (take(guest, &length, sizeof length)) {
        length = ntohl(length);
        if (length > longest || !take(guest, frame, length)) break;
        struct iovec iov = {frame, length};
        struct vmpktdesc packet = {length, &iov, 1, 0};
        int count = 1;
        vmnet_return_t status = vmnet_write(interface, &packet, &count);
        if (status != VMNET_SUCCESS) fprintf(stderr, "a frame of %u bytes was refused: status %u\n", length, status);
    }
    fprintf(stderr, "the guest is gone\n");
    exit(0);
}

/* Network to guest: the length and the frame of each packet go out together. */
static void deliver(int guest, struct vmpktdesc *packets, int count) {
    uint32_t lengths[BATCH];
    struct iovec out[2 * BATCH];
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        lengths[i] = htonl((uint32_t)packets[i].vm_pkt_size);
        out[2 * i] = (struct iovec){&lengths[i], sizeof lengths[i]};
        out[2 * i + 1] = *packets[i].vm_pkt_iov;
        total += sizeof lengths[i] + packets[i].vm_pkt_size;
    }
    struct iovec *next = out;
    while (total > 0) {
        struct msghdr message = {.msg_iov = next, .msg_iovlen = (size_t)(out + 2 * count - next)};
        ssize_t sent = sendmsg(guest, &message, MSG_NOSIGNAL);
        if (sent < 0) fail("the guest");
        total -= (size_t)sent;
        for (; sent > 0 && (size_t)sent >= next->iov_len; next++) sent -= (ssize_t)next->iov_len;
        next->iov_base = (char *)next->iov_base + sent;
        next->iov_len -= (size_t)sent;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    if (argc < 2 || strlen(argv[1]) >= sizeof path.sun_path) {
        fprintf(stderr, "usage: qemu_bridge SOCKET [shared|host]\n");
        return 2;
    }
    const bool host = argc > 2 && strcmp(argv[2], "host") == 0;
    sem_init(&event, 0, 0);
    xpc_object_t desc = xpc_dictionary_create_empty();
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, host ? VMNET_HOST_MODE : VMNET_SHARED_MODE);
    /* The guest has a MAC of its own. */
    xpc_dictionary_set_bool(desc, vmnet_allocate_mac_address_key, false);
    interface = vmnet_start_interface_f(desc, NULL, NULL, on_started);
    xpc_release(desc);
    sem_wait(&event);

    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(path.sun_path, argv[1]);
    unlink(argv[1]);
    if (bind(listener, (struct sockaddr *)&path, sizeof path) != 0 || listen(listener, 1) != 0) fail(argv[1]);
    printf("ready\n");
    fflush(stdout);
    int guest = accept(listener, NULL, NULL);
    if (guest < 0) fail("accept");
    close(listener);
    unlink(argv[1]);

    pthread_t thread;
    if (pthread_create(&thread, NULL, forward, &guest) != 0) fail("a thread");
    vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL, on_event);
    static struct iovec buffers[BATCH];
    static struct vmpktdesc packets[BATCH];
    for (int i = 0; i < BATCH; i++) buffers[i].iov_base = malloc(longest);
    for (;;) {
        for (int i = 0; i < BATCH; i++) packets[i] = (struct vmpktdesc){longest, &buffers[i], 1, 0};
        int count = BATCH;
        if (vmnet_read(interface, packets, &count) != VMNET_SUCCESS) return 1;
        if (count == 0) {
            sem_wait(&event);
        } else {
            deliver(guest, packets, count);
        }
    }
}
