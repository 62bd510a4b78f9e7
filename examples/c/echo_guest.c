/*
 * A guest that answers ping, and nothing else. It needs neither blocks nor a dispatch library: any C compiler builds it.
 *
 *   cc echo_guest.c -o echo_guest $(pkg-config --cflags --libs vmnet)
 *   ./echo_guest ADDRESS [shared|host]
 *
 * Another guest of the network reaches it: vmnet run --network shared -- ping ADDRESS
 */
#include <arpa/inet.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmnet/vmnet.h>

enum { ETHERNET = 14, ARP = 0x0806, IPV4 = 0x0800 };

static interface_ref interface;
static sem_t event;
static size_t longest;
static uint8_t mac[6];
static struct in_addr address;

static unsigned get16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

static void fail(const char *what, unsigned status) {
    fprintf(stderr, "%s: status %u (with VMNET_DEBUG=1 it says why)\n", what, status);
    exit(1);
}

static void on_started(void *context, vmnet_return_t status, xpc_object_t parameters) {
    (void)context;
    if (status != VMNET_SUCCESS) fail("the interface did not start", status);
    const char *text = xpc_dictionary_get_string(parameters, vmnet_mac_address_key);
    sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]);
    longest = xpc_dictionary_get_uint64(parameters, vmnet_max_packet_size_key);
    struct in_addr first, mask;
    inet_pton(AF_INET, xpc_dictionary_get_string(parameters, vmnet_start_address_key), &first);
    inet_pton(AF_INET, xpc_dictionary_get_string(parameters, vmnet_subnet_mask_key), &mask);
    if (((first.s_addr ^ address.s_addr) & mask.s_addr) != 0) {
        fprintf(stderr, "nobody would reach this address: the network begins at %s\n", inet_ntoa(first));
        exit(1);
    }
    sem_post(&event);
}

/* Called in a thread of the library: the work is the main thread's. */
static void on_event(void *context, interface_event_t mask, xpc_object_t details) {
    (void)context;
    (void)mask;
    (void)details;
    sem_post(&event);
}

/* Makes an answer of what was asked, in its place. False: there is none. */
static bool answered(uint8_t *frame, size_t length) {
    uint8_t *packet = frame + ETHERNET;
    if (length >= ETHERNET + 28 && get16(frame + 12) == ARP) {
        if (get16(packet + 6) != 1 || memcmp(packet + 24, &address, 4) != 0) return false;
        packet[7] = 2;
        memcpy(packet + 18, packet + 8, 10);
        memcpy(packet + 8, mac, 6);
        memcpy(packet + 14, &address, 4);
    } else if (length >= ETHERNET + 28 && get16(frame + 12) == IPV4) {
        uint8_t *icmp = packet + 20, from[4];
        /* Without options, not in pieces, ICMP, to us, an echo request. */
        if (packet[0] != 0x45 || (get16(packet + 6) & 0x3fff) != 0 || packet[9] != 1) return false;
        if (memcmp(packet + 16, &address, 4) != 0 || icmp[0] != 8) return false;
        memcpy(from, packet + 12, 4);
        memcpy(packet + 12, packet + 16, 4);
        memcpy(packet + 16, from, 4);
        icmp[0] = 0;
        /* The checksum grows by what the type has lost (RFC 1624). */
        unsigned sum = get16(icmp + 2) + 0x0800;
        sum = (sum & 0xffff) + (sum >> 16);
        icmp[2] = (uint8_t)(sum >> 8);
        icmp[3] = (uint8_t)sum;
    } else {
        return false;
    }
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, mac, 6);
    return true;
}

int main(int argc, char **argv) {
    const bool host = argc > 2 && strcmp(argv[2], "host") == 0;
    const bool known = argc == 2 || (argc == 3 && (host || strcmp(argv[2], "shared") == 0));
    if (!known || inet_pton(AF_INET, argv[1], &address) != 1) {
        fprintf(stderr, "usage: echo_guest ADDRESS [shared|host]\n");
        return 2;
    }
    sem_init(&event, 0, 0);
    xpc_object_t desc = xpc_dictionary_create_empty();
    xpc_dictionary_set_uint64(desc, vmnet_operation_mode_key, host ? VMNET_HOST_MODE : VMNET_SHARED_MODE);
    interface = vmnet_start_interface_f(desc, NULL, NULL, on_started);
    xpc_release(desc);
    sem_wait(&event);
    vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL, on_event);
    printf("ready\n");
    fflush(stdout);
    uint8_t *buffer = malloc(longest);
    for (;;) {
        struct iovec iov = {buffer, longest};
        struct vmpktdesc packet = {longest, &iov, 1, 0};
        int count = 1;
        vmnet_return_t status = vmnet_read(interface, &packet, &count);
        if (status != VMNET_SUCCESS) fail("vmnet_read", status);
        if (count == 0) {
            sem_wait(&event);
        } else if (answered(buffer, packet.vm_pkt_size)) {
            /* Its size and its buffer's length are those that were read. */
            status = vmnet_write(interface, &packet, &count);
            if (status != VMNET_SUCCESS) fail("vmnet_write", status);
        }
    }
}
