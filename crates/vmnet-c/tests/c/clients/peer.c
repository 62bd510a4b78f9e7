/*
 * The other process of these tests: answers questions with as many frames as are asked for, until its standard input ends.
 *
 *   peer host|shared [START END MASK]
 *
 * It reads in one thread and without any callback, in batches, and writes in batches.
 */
#include <poll.h>

#include "../client.h"
#include "../frame.h"

enum { BATCH = 64, LONGEST = 2048 };

static uint8_t bytes[BATCH][LONGEST], out[BATCH][LONGEST];

static void answer(interface_ref interface, const uint8_t *asked) {
    static const uint8_t mac[6] = {0x0a, 0x70, 0x65, 0x65, 0x72, 0x01};
    uint32_t count = get32(asked + ETHERNET + 4), length = get32(asked + ETHERNET + 8);
    struct iovec iov[BATCH];
    struct vmpktdesc packets[BATCH];
    CHECK(length <= LONGEST);
    for (uint32_t done = 0; done < count;) {
        int some = 0;
        for (; some < BATCH && done < count; some++, done++) {
            ethernet(out[some], asked + 6, mac, TYPE_PEER);
            put32(out[some] + ETHERNET, get32(asked + ETHERNET));
            put32(out[some] + ETHERNET + 4, done);
            for (uint32_t i = ETHERNET + 8; i < length; i++) out[some][i] = (uint8_t)(i + done);
            iov[some] = (struct iovec){out[some], length};
            packets[some] = (struct vmpktdesc){length, &iov[some], 1, 0};
        }
        int written = some;
        CHECK(vmnet_write(interface, packets, &written) == VMNET_SUCCESS && written == some);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2 || argc == 5);
    xpc_object_t desc = description(strcmp(argv[1], "host") == 0 ? VMNET_HOST_MODE : VMNET_SHARED_MODE);
    xpc_dictionary_set_bool(desc, vmnet_allocate_mac_address_key, false);
    if (argc == 5) {
        xpc_dictionary_set_string(desc, vmnet_start_address_key, argv[2]);
        xpc_dictionary_set_string(desc, vmnet_end_address_key, argv[3]);
        xpc_dictionary_set_string(desc, vmnet_subnet_mask_key, argv[4]);
    }
    dispatch_queue_t queue = dispatch_queue_create("peer", DISPATCH_QUEUE_SERIAL);
    struct started it = started(desc, queue);
    puts("ready");
    fflush(stdout);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (poll(&input, 1, 1) == 0) {
        struct iovec iov[BATCH];
        struct vmpktdesc packets[BATCH];
        for (int i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){bytes[i], LONGEST};
            packets[i] = (struct vmpktdesc){LONGEST, &iov[i], 1, 0};
        }
        int count = BATCH;
        CHECK(vmnet_read(it.interface, packets, &count) == VMNET_SUCCESS);
        for (int i = 0; i < count; i++) {
            if (get16(bytes[i] + 12) == TYPE_PEER && memcmp(bytes[i], BROADCAST, 6) == 0) answer(it.interface, bytes[i]);
        }
    }
    stop(it.interface, queue);
    xpc_release(it.parameters);
    dispatch_release(queue);
    return 0;
}
