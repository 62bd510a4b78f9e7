/* Frames as guests send them: ARP, DHCP, ping, and a question that the peer of these tests answers. */
#ifndef FRAME_H
#define FRAME_H

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

enum {
    ETHERNET = 14,
    ARP_FRAME = ETHERNET + 28,
    PING_FRAME = ETHERNET + 20 + 8 + 32,
    DHCP_FRAME = ETHERNET + 20 + 8 + 300,
    TYPE_IPV4 = 0x0800,
    TYPE_ARP = 0x0806,
    TYPE_PEER = 0x88b5, /* for experiments of one's own (IEEE 802) */
    QUESTION_FRAME = ETHERNET + 12,
};

static const uint8_t BROADCAST[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static inline void put16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static inline unsigned get16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }
static inline uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static inline void ethernet(uint8_t *frame, const uint8_t *to, const uint8_t *from, unsigned type) {
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    put16(frame + 12, type);
}

/* The internet checksum. */
static inline unsigned sum(const uint8_t *at, size_t length, uint32_t total) {
    for (size_t i = 0; i + 1 < length; i += 2) total += get16(at + i);
    if (length % 2) total += (uint32_t)at[length - 1] << 8;
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return ~total & 0xffff;
}

/* Who has an address? Addresses are in the host's order here. */
static inline void arp_request(uint8_t *frame, const uint8_t *mac, uint32_t ours, uint32_t asked) {
    memset(frame, 0, ARP_FRAME);
    ethernet(frame, BROADCAST, mac, TYPE_ARP);
    uint8_t *arp = frame + ETHERNET;
    put16(arp, 1);
    put16(arp + 2, TYPE_IPV4);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, 1);
    memcpy(arp + 8, mac, 6);
    put32(arp + 14, ours);
    put32(arp + 24, asked);
}

static inline void ipv4(uint8_t *frame, size_t length, unsigned protocol, uint32_t from, uint32_t to) {
    uint8_t *ip = frame + ETHERNET;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)length - ETHERNET);
    ip[8] = 64;
    ip[9] = (uint8_t)protocol;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, sum(ip, 20, 0));
}

static inline void ping(uint8_t *frame, const uint8_t *to, const uint8_t *mac, uint32_t ours, uint32_t asked, unsigned number) {
    memset(frame, 0, PING_FRAME);
    ethernet(frame, to, mac, TYPE_IPV4);
    ipv4(frame, PING_FRAME, 1, ours, asked);
    uint8_t *icmp = frame + ETHERNET + 20;
    icmp[0] = 8;
    put16(icmp + 4, 0x1234);
    put16(icmp + 6, number);
    for (int i = 8; i < 40; i++) icmp[i] = (uint8_t)i;
    put16(icmp + 2, sum(icmp, 40, 0));
}

/* DISCOVER, or REQUEST of what a server offers. */
static inline void dhcp(uint8_t *frame, const uint8_t *mac, uint32_t offered, uint32_t server) {
    memset(frame, 0, DHCP_FRAME);
    ethernet(frame, BROADCAST, mac, TYPE_IPV4);
    uint8_t *udp = frame + ETHERNET + 20, *bootp = udp + 8, *option = bootp + 236;
    put16(udp, 68);
    put16(udp + 2, 67);
    put16(udp + 4, 308);
    bootp[0] = bootp[1] = 1;
    bootp[2] = 6;
    memcpy(bootp + 4, mac + 2, 4);
    put16(bootp + 10, 0x8000); /* answered by broadcast */
    memcpy(bootp + 28, mac, 6);
    memcpy(option, "\x63\x82\x53\x63\x35\x01", 6);
    option[6] = server ? 3 : 1;
    option += 7;
    if (server) {
        memcpy(option, "\x32\x04", 2);
        put32(option + 2, offered);
        memcpy(option + 6, "\x36\x04", 2);
        put32(option + 8, server);
        option += 12;
    }
    *option = 0xff;
    ipv4(frame, DHCP_FRAME, 17, 0, 0xffffffff);
}

/* An answer of a DHCP server to this MAC: the kind, and where its address and its server are. */
static inline unsigned dhcp_answer(const uint8_t *frame, size_t length, const uint8_t *mac, uint32_t *address, uint32_t *server) {
    const uint8_t *udp = frame + ETHERNET + 20, *bootp = udp + 8, *end = frame + length;
    if (length < ETHERNET + 28 + 240 || get16(frame + 12) != TYPE_IPV4 || frame[ETHERNET + 9] != 17) return 0;
    if (get16(udp) != 67 || get16(udp + 2) != 68 || memcmp(bootp + 28, mac, 6) != 0) return 0;
    unsigned kind = 0;
    *address = get32(bootp + 16);
    for (const uint8_t *option = bootp + 240; option + 2 < end && *option != 0xff;) {
        if (*option == 0) {
            option++;
            continue;
        }
        if (option[0] == 0x35) kind = option[2];
        if (option[0] == 0x36 && option + 6 <= end) *server = get32(option + 2);
        option += 2 + option[1];
    }
    return kind;
}

/* Asks the peer for so many frames of so many bytes. The question's own number comes back in each. */
static inline void question(uint8_t *frame, const uint8_t *mac, uint32_t number, uint32_t count, uint32_t length) {
    ethernet(frame, BROADCAST, mac, TYPE_PEER);
    put32(frame + ETHERNET, number);
    put32(frame + ETHERNET + 4, count);
    put32(frame + ETHERNET + 8, length);
}

#endif
