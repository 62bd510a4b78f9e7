/* Two interfaces of one process, which read by polling. */
#ifndef PAIR_H
#define PAIR_H

#include <time.h>

#include "../client.h"
#include "../frame.h"

static uint8_t got[70000];

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The next frame, within so many seconds; its length, or 0. */
static inline size_t next_frame(interface_ref interface, double within) {
    for (double end = now() + within; now() < end; usleep(1000)) {
        struct iovec iov = {got, sizeof got};
        struct vmpktdesc packet = {sizeof got, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 1) return packet.vm_pkt_size;
    }
    return 0;
}

/* The next frame of which this is true, in `got`; its length, or 0. */
#define FRAME(interface, within, condition)                                                   \
    __extension__({                                                                           \
        size_t length;                                                                        \
        double until = now() + (within);                                                      \
        while ((length = next_frame(interface, until - now())) != 0 && !(condition)) continue; \
        length;                                                                               \
    })

static inline unsigned icmp6_type(size_t length) {
    return length >= ETHERNET + 48 && get16(got + 12) == 0x86dd && got[ETHERNET + 6] == 58 ? got[ETHERNET + 40] : 0;
}

/* A TCP segment of so many bytes, whose sums are left to others. */
static inline size_t tcp(uint8_t *frame, const uint8_t *to, const uint8_t *mac, uint32_t from, uint32_t address,
                         size_t payload) {
    size_t length = ETHERNET + 40 + payload;
    memset(frame, 0, length);
    ethernet(frame, to, mac, TYPE_IPV4);
    ipv4(frame, length, 6, from, address);
    put16(frame + ETHERNET + 10, 0);
    uint8_t *segment = frame + ETHERNET + 20;
    put16(segment, 1234);
    put16(segment + 2, 80);
    put32(segment + 4, 1000);
    segment[12] = 0x50;
    segment[13] = 0x10;
    put16(segment + 14, 1000);
    for (size_t i = 0; i < payload; i++) segment[20 + i] = (uint8_t)(i * 7);
    return length;
}

/* Whether the sums of a TCP segment in `got` are right. */
static inline bool tcp_is_right(void) {
    const uint8_t *ip = got + ETHERNET;
    size_t length = get16(ip + 2) - 20u;
    uint32_t pseudo = get16(ip + 12) + get16(ip + 14) + get16(ip + 16) + get16(ip + 18) + 6 + (uint32_t)length;
    return sum(ip, 20, 0) == 0 && sum(ip + 20, length, pseudo) == 0;
}

static inline bool is_tcp(size_t length) {
    return length >= ETHERNET + 40 && get16(got + 12) == TYPE_IPV4 && got[ETHERNET + 9] == 6;
}

#endif
