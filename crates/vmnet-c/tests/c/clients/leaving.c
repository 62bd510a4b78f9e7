/*
 * Frames of programs that exit without stopping their interface: what was written before goes out.
 *
 *   leaving write ROUND       writes its frames, and exits at once
 *   leaving read ROUNDS       hears those of all rounds; a line on its standard input says that a round is over
 */
#include <unistd.h>

#include "pair.h"

enum { COUNT = 50, MOST = 100 };

static const uint8_t mac[6] = {0x0a, 0x6c, 0x65, 0x61, 0x76, 0x65};

static size_t length_of(uint32_t number) { return 60 + 28 * number; }

static void leave(uint32_t round) {
    struct started it = started(description(VMNET_HOST_MODE), dispatch_get_global_queue(0, 0));
    static uint8_t frames[COUNT][1500];
    struct iovec iov[COUNT];
    struct vmpktdesc packets[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        ethernet(frames[i], BROADCAST, mac, TYPE_PEER);
        put32(frames[i] + ETHERNET, round);
        put32(frames[i] + ETHERNET + 4, i);
        iov[i] = (struct iovec){frames[i], length_of(i)};
        packets[i] = (struct vmpktdesc){length_of(i), &iov[i], 1, 0};
    }
    int count = COUNT;
    CHECK(vmnet_write(it.interface, packets, &count) == VMNET_SUCCESS && count == COUNT);
    _exit(0);
}

static void hear(uint32_t rounds) {
    struct started it = started(description(VMNET_HOST_MODE), dispatch_get_global_queue(0, 0));
    puts("ready");
    fflush(stdout);
    for (uint32_t round = 0; round < rounds; round++) {
        char line[16];
        CHECK(fgets(line, sizeof line, stdin) != NULL);
        for (uint32_t i = 0; i < COUNT; i++) {
            size_t length = FRAME(it.interface, 5, get16(got + 12) == TYPE_PEER);
            CHECK(length == length_of(i));
            CHECK(get32(got + ETHERNET) == round && get32(got + ETHERNET + 4) == i);
        }
    }
    CHECK(getchar() == EOF);
    _exit(0);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    uint32_t number = (uint32_t)atoi(argv[2]);
    CHECK(number <= MOST);
    if (strcmp(argv[1], "write") == 0) leave(number);
    hear(number);
}
