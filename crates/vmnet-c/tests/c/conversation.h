/*
 * What every client of these tests says and hears, however it reads and writes: it gets an address by DHCP, finds the
 * gateway by ARP, pings it, and asks the peer, which is another process, for a burst of frames that come in order.
 *
 * A client gives each frame it reads to `arrived`, from any thread, and sends by the function that it gives to `converse`.
 */
#ifndef CONVERSATION_H
#define CONVERSATION_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "check.h"
#include "frame.h"

typedef void (*send_function)(const uint8_t *frame, size_t length);

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint8_t mac[6], gateway_mac[6];
    uint32_t ours, gateway, offered, server, number, answers;
    unsigned lease;
    bool found, pinged, strange;
    size_t length;
} talk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* A frame has been read. Others than expected are nobody's fault: the network speaks to everyone. */
static inline void arrived(const uint8_t *frame, size_t length) {
    CHECK(length >= ETHERNET);
    pthread_mutex_lock(&talk.lock);
    unsigned type = get16(frame + 12);
    if (type == TYPE_ARP && length >= ARP_FRAME && get16(frame + 20) == 2 && get32(frame + 28) == talk.gateway) {
        memcpy(talk.gateway_mac, frame + 22, 6);
        talk.found = true;
    } else if (type == TYPE_PEER && memcmp(frame, talk.mac, 6) == 0 && get32(frame + ETHERNET) == talk.number) {
        if (get32(frame + ETHERNET + 4) != talk.answers || length != talk.length) talk.strange = true;
        for (size_t i = ETHERNET + 8; i < length; i++) {
            if (frame[i] != (uint8_t)(i + talk.answers)) talk.strange = true;
        }
        talk.answers++;
    } else if (type == TYPE_IPV4 && length >= PING_FRAME && frame[ETHERNET + 9] == 1 && frame[ETHERNET + 20] == 0) {
        talk.pinged = true;
    } else {
        unsigned kind = dhcp_answer(frame, length, talk.mac, &talk.offered, &talk.server);
        if (kind != 0) talk.lease = kind;
    }
    pthread_cond_broadcast(&talk.changed);
    pthread_mutex_unlock(&talk.lock);
}

/* Says something until it is so, as guests do; with the lock held. */
#define UNTIL(condition, frame, length)                                        \
    for (int tries = 0; !(condition); tries++) {                               \
        CHECK(tries < 60 && #condition);                                       \
        pthread_mutex_unlock(&talk.lock);                                      \
        if ((length) != 0) send(frame, length);                                \
        pthread_mutex_lock(&talk.lock);                                        \
        struct timespec end;                                                   \
        clock_gettime(CLOCK_REALTIME, &end);                                   \
        end.tv_sec++;                                                          \
        while (!(condition)) {                                                 \
            if (pthread_cond_timedwait(&talk.changed, &talk.lock, &end)) break; \
        }                                                                      \
    }

/* Asks the peer, and waits for all of its answers, each as it should be and in order. */
static inline void ask_peer(send_function send, uint32_t count, size_t length) {
    uint8_t frame[QUESTION_FRAME];
    pthread_mutex_lock(&talk.lock);
    talk.number++;
    talk.answers = 0;
    talk.length = length;
    question(frame, talk.mac, talk.number, count, (uint32_t)length);
    pthread_mutex_unlock(&talk.lock);
    send(frame, sizeof frame);
    pthread_mutex_lock(&talk.lock);
    UNTIL(talk.answers >= count, frame, 0);
    CHECK(!talk.strange && talk.answers == count);
    pthread_mutex_unlock(&talk.lock);
}

/* The MAC to speak from; without one, any that is nobody's. */
static inline void speak_as(const char *mac) {
    unsigned part[6] = {0x0a, 0x76, (unsigned)getpid() >> 8 & 0xff, (unsigned)getpid() & 0xff, 0, 1};
    if (mac != NULL) CHECK(sscanf(mac, "%x:%x:%x:%x:%x:%x", part, part + 1, part + 2, part + 3, part + 4, part + 5) == 6);
    for (int i = 0; i < 6; i++) talk.mac[i] = (uint8_t)part[i];
}

/* The whole conversation. Without a server of DHCP, `ours` is the address to speak from. */
static inline void converse(send_function send, const char *gateway, const char *ours, uint32_t burst) {
    uint8_t frame[DHCP_FRAME];
    struct in_addr address;
    CHECK(inet_pton(AF_INET, gateway, &address) == 1);
    pthread_mutex_lock(&talk.lock);
    talk.gateway = ntohl(address.s_addr);
    if (ours == NULL) {
        dhcp(frame, talk.mac, 0, 0);
        UNTIL(talk.lease == 2, frame, DHCP_FRAME);
        CHECK(talk.server == talk.gateway);
        dhcp(frame, talk.mac, talk.offered, talk.server);
        UNTIL(talk.lease == 5, frame, DHCP_FRAME);
        talk.ours = talk.offered;
    } else {
        CHECK(inet_pton(AF_INET, ours, &address) == 1);
        talk.ours = ntohl(address.s_addr);
    }
    arp_request(frame, talk.mac, talk.ours, talk.gateway);
    UNTIL(talk.found, frame, ARP_FRAME);
    ping(frame, talk.gateway_mac, talk.mac, talk.ours, talk.gateway, 1);
    UNTIL(talk.pinged, frame, PING_FRAME);
    pthread_mutex_unlock(&talk.lock);
    if (burst != 0) ask_peer(send, burst, 1514);
    if (burst != 0) ask_peer(send, burst, ETHERNET + 8);
}

#endif
