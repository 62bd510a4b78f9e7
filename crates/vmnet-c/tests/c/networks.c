/* Networks of the service: made, looked at, given to another process inside a bigger dictionary, let go. */
#include <arpa/inet.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmnet/vmnet.h>

#include "check.h"

static vmnet_network_configuration_ref configured(const char *address) {
    struct in_addr subnet, mask;
    CHECK(inet_pton(AF_INET, address, &subnet) == 1 && inet_pton(AF_INET, "255.255.255.0", &mask) == 1);
    vmnet_return_t status = VMNET_FAILURE;
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(VMNET_HOST_MODE, &status);
    CHECK(config != NULL && status == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_set_ipv4_subnet(config, &subnet, &mask) == VMNET_SUCCESS);
    return config;
}

static void is_at(vmnet_network_ref network, const char *address) {
    struct in_addr subnet, mask;
    char text[INET_ADDRSTRLEN];
    vmnet_network_get_ipv4_subnet(network, &subnet, &mask);
    CHECK(strcmp(inet_ntop(AF_INET, &subnet, text, sizeof text), address) == 0);
    CHECK(strcmp(inet_ntop(AF_INET, &mask, text, sizeof text), "255.255.255.0") == 0);
}

/* The other process gets the serialization from its standard input. */
static int other(void) {
    uint8_t bytes[256];
    ssize_t length = read(0, bytes, sizeof bytes);
    CHECK(length > 0);
    xpc_object_t serialization = xpc_dictionary_create_empty();
    xpc_dictionary_set_data(serialization, "networkSerialization", bytes, (size_t)length);
    xpc_dictionary_set_string(serialization, "more", "than it needs");
    vmnet_return_t status = VMNET_FAILURE;
    vmnet_network_ref network = vmnet_network_create_with_serialization(serialization, &status);
    xpc_release(serialization);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    is_at(network, "192.168.140.1");
    CFRelease(network);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return other();
    vmnet_return_t status = VMNET_FAILURE;
    vmnet_network_configuration_ref config = configured("192.168.140.0");
    vmnet_network_ref network = vmnet_network_create(config, &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    is_at(network, "192.168.140.1");
    struct in6_addr prefix;
    uint8_t length = 99;
    vmnet_network_get_ipv6_prefix(network, &prefix, &length);
    CHECK(length == 64 && prefix.s6_addr[0] == 0xfd);

    /* The subnet is taken. */
    CHECK(vmnet_network_create(config, &status) == NULL && status == VMNET_FAILURE);
    CFRelease(config);

    /* A subnet that is not private is refused when the network is made. */
    config = configured("8.8.8.1");
    CHECK(vmnet_network_create(config, &status) == NULL && status == VMNET_FAILURE);
    CFRelease(config);

    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_object_t serialization = vmnet_network_copy_serialization(network, &status);
    CHECK(serialization != NULL && status == VMNET_SUCCESS);
    xpc_dictionary_set_value(message, "network", serialization);
    xpc_release(serialization);
    serialization = xpc_dictionary_get_dictionary(message, "network");
    vmnet_network_ref again = vmnet_network_create_with_serialization(serialization, &status);
    CHECK(again != NULL && status == VMNET_SUCCESS);
    is_at(again, "192.168.140.1");
    CFRelease(again);

    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(ends[0], 0);
        execl(argv[0], argv[0], "other", (char *)NULL);
        _Exit(1);
    }
    size_t count = 0;
    const void *bytes = xpc_dictionary_get_data(serialization, "networkSerialization", &count);
    CHECK(write(ends[1], bytes, count) == (ssize_t)count);
    close(ends[0]);
    close(ends[1]);
    int how = 1;
    CHECK(waitpid(pid, &how, 0) == pid && how == 0);

    /* Who lets go of the network frees its subnet. */
    CFRelease(network);
    for (int i = 0; i < 500; i++) {
        network = vmnet_network_create_with_serialization(serialization, &status);
        if (network == NULL) break;
        CFRelease(network);
        usleep(10000);
    }
    CHECK(status == VMNET_FAILURE);
    xpc_release(message);
    config = configured("192.168.140.7");
    network = vmnet_network_create(config, &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    is_at(network, "192.168.140.7");
    CFRelease(network);
    CFRelease(config);
    return 0;
}
