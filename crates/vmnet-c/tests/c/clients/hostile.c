/* What no program should do, and some will: nothing here may crash, hang, or call a handler twice. */
#include <sys/wait.h>

#include "../child.h"
#include "../client.h"
#include "../conversation.h"

static dispatch_queue_t queue;

#define WITHIN(semaphore) \
    CHECK(dispatch_semaphore_wait(semaphore, dispatch_time(DISPATCH_TIME_NOW, 60 * NSEC_PER_SEC)) == 0)

static xpc_object_t shared(void) { return description(VMNET_SHARED_MODE); }

/* Null wherever there can be one. */
static void nulls(interface_ref interface) {
    vmnet_start_interface_completion_handler_t never = ^(vmnet_return_t status, xpc_object_t param) {
        (void)param;
        fprintf(stderr, "called with %u\n", status);
        abort();
    };
    vmnet_interface_completion_handler_t never_done = ^(vmnet_return_t status) {
        fprintf(stderr, "called with %u\n", status);
        abort();
    };
    vmnet_interface_get_ip_port_forwarding_rules_handler_t no_rules = ^(xpc_object_t rules) {
        (void)rules;
        abort();
    };
    xpc_object_t desc = shared();
    CHECK(vmnet_start_interface(NULL, queue, never) == NULL);
    CHECK(vmnet_start_interface(desc, NULL, never) == NULL);
    CHECK(vmnet_start_interface(desc, queue, NULL) == NULL);
    CHECK(vmnet_start_interface_f(NULL, queue, NULL, NULL) == NULL);
    CHECK(vmnet_interface_start_with_network(NULL, desc, queue, never) == NULL);
    CHECK(vmnet_interface_start_with_network_f(NULL, desc, queue, NULL, NULL) == NULL);
    CHECK(vmnet_stop_interface(NULL, queue, never_done) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_stop_interface(interface, NULL, never_done) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_stop_interface(interface, queue, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_set_event_callback(NULL, 1, NULL, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_set_event_callback(interface, 1, queue, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_set_event_callback(interface, 1, NULL, ^(interface_event_t mask, xpc_object_t event) {
              (void)mask;
              (void)event;
          }) == VMNET_INVALID_ARGUMENT);
    struct iovec iov = {NULL, 100};
    struct vmpktdesc packet = {100, &iov, 1, 0}, without = {100, NULL, 1, 0}, in_none = {100, &iov, 0, 0};
    uint8_t bytes[100] = {0};
    struct iovec real = {bytes, sizeof bytes};
    struct vmpktdesc empty = {0, &real, 1, 0}, tiny = {13, &real, 1, 0}, large = {1515, &real, 1, 0}, more = {101, &real, 1, 0};
    int one = 1, none = 0, minus = -1, many = 257;
    CHECK(vmnet_read(NULL, &packet, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_read(interface, NULL, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_read(interface, &packet, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_read(interface, &packet, &minus) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_read(interface, &packet, &none) == VMNET_SUCCESS && none == 0);
    CHECK(vmnet_write(NULL, &packet, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, NULL, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &packet, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &packet, &minus) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &packet, &none) == VMNET_SUCCESS && none == 0);
    CHECK(vmnet_write(interface, &packet, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &without, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &in_none, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &empty, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &tiny, &one) == VMNET_INVALID_ARGUMENT);
    /* More than the buffers hold. */
    CHECK(vmnet_write(interface, &more, &one) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_write(interface, &large, &one) == VMNET_PACKET_TOO_BIG);
    static struct vmpktdesc packets[257];
    for (int i = 0; i < 257; i++) packets[i] = (struct vmpktdesc){60, &real, 1, 0};
    CHECK(vmnet_write(interface, packets, &many) == VMNET_TOO_MANY_PACKETS);
    /* All or nothing: one bad packet, and none is written. */
    int four = 4;
    packets[3] = tiny;
    CHECK(vmnet_write(interface, packets, &four) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_add_ip_port_forwarding_rule(NULL, 6, 1, AF_INET, bytes, 1, never_done) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_add_ip_port_forwarding_rule(interface, 6, 1, AF_INET, NULL, 1, never_done) ==
          VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_remove_ip_port_forwarding_rule(NULL, 6, 1, AF_INET, never_done) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_get_ip_port_forwarding_rules(NULL, AF_INET, no_rules) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_interface_get_ip_port_forwarding_rules(interface, AF_INET, NULL) == VMNET_INVALID_ARGUMENT);
    CFRelease(NULL);
    xpc_release(desc);
}

/* Wrong types, unknown keys, what cannot be. */
static void descriptions(void) {
    struct {
        const char *key;
        xpc_object_t value;
        vmnet_return_t status;
    } cases[] = {
        {"nobody.knows.this", xpc_string_create("x"), VMNET_SUCCESS},
        {vmnet_enable_tso_key, xpc_bool_create(false), VMNET_SUCCESS},
        {vmnet_nat66_prefix_length_key, xpc_uint64_create(64), VMNET_SUCCESS},
        {vmnet_nat66_prefix_length_key, xpc_uint64_create(48), VMNET_INVALID_ARGUMENT},
        {vmnet_operation_mode_key, xpc_int64_create(1001), VMNET_INVALID_ARGUMENT},
        {vmnet_operation_mode_key, xpc_uint64_create(1003), VMNET_INVALID_ARGUMENT},
        {vmnet_operation_mode_key, xpc_uint64_create(UINT64_C(1001) + (UINT64_C(1) << 32)), VMNET_INVALID_ARGUMENT},
        {vmnet_interface_id_key, xpc_string_create("2835E074-9892-4A79-AFFB-7E41D2605678"), VMNET_INVALID_ARGUMENT},
        {vmnet_allocate_mac_address_key, xpc_uint64_create(1), VMNET_INVALID_ARGUMENT},
        {vmnet_start_address_key, xpc_string_create("192.168.170.1"), VMNET_INVALID_ARGUMENT},
        {vmnet_subnet_mask_key, xpc_string_create("255.255.255.0"), VMNET_INVALID_ARGUMENT},
        {vmnet_start_address_key, xpc_uint64_create(1), VMNET_INVALID_ARGUMENT},
        {vmnet_mtu_key, xpc_string_create("1500"), VMNET_INVALID_ARGUMENT},
        {vmnet_mtu_key, xpc_uint64_create(UINT64_MAX), VMNET_INVALID_ARGUMENT},
        {vmnet_nat66_prefix_key, xpc_string_create("2001:db8::"), VMNET_INVALID_ARGUMENT},
        {vmnet_enable_isolation_key, xpc_null_create(), VMNET_INVALID_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xpc_object_t desc = shared();
        xpc_dictionary_set_value(desc, cases[i].key, cases[i].value);
        xpc_release(cases[i].value);
        struct started it = start_on(NULL, desc, queue);
        if (it.status != cases[i].status) fprintf(stderr, "case %zu: %u\n", i, it.status);
        CHECK(it.status == cases[i].status && (it.parameters != NULL) == (it.status == VMNET_SUCCESS));
        if (it.status == VMNET_SUCCESS) stop(it.interface, queue);
        xpc_release(it.parameters);
        xpc_release(desc);
    }
    xpc_object_t array = xpc_array_create_empty();
    struct started it = start_on(NULL, array, queue);
    CHECK(it.status == VMNET_INVALID_ARGUMENT);
    xpc_release(array);
}

/* Twice, at once, and everything after it. */
static void stopped(void) {
    struct started it = started(shared(), queue);
    dispatch_semaphore_t both = dispatch_semaphore_create(0);
    for (int i = 0; i < 2; i++) {
        CHECK(vmnet_stop_interface(it.interface, queue, ^(vmnet_return_t status) {
                  CHECK(status == VMNET_SUCCESS);
                  dispatch_semaphore_signal(both);
              }) == VMNET_SUCCESS);
        uint8_t bytes[60] = {0};
        struct iovec iov = {bytes, sizeof bytes};
        struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_write(it.interface, &packet, &count) == VMNET_SETUP_INCOMPLETE);
        count = 1;
        CHECK(vmnet_read(it.interface, &packet, &count) == VMNET_SETUP_INCOMPLETE);
    }
    WITHIN(both);
    WITHIN(both);
    stop(it.interface, queue);
    CHECK(vmnet_interface_set_event_callback(it.interface, 1, queue, ^(interface_event_t mask, xpc_object_t event) {
              (void)mask;
              (void)event;
          }) == VMNET_SETUP_INCOMPLETE);
    CHECK(vmnet_interface_set_event_callback(it.interface, 1, NULL, NULL) == VMNET_SUCCESS);
    CHECK(vmnet_interface_get_ip_port_forwarding_rules(it.interface, AF_INET, ^(xpc_object_t rules) {
              (void)rules;
              abort();
          }) == VMNET_SETUP_INCOMPLETE);
    xpc_release(it.parameters);
    CFRetain(it.interface);
    CFRelease(it.interface);
    CFRelease(it.interface);
    dispatch_release(both);
}

/* Stopped before it has started: both are told, in this order. */
static void stopped_at_once(void) {
    for (int i = 0; i < 5; i++) {
        dispatch_semaphore_t done = dispatch_semaphore_create(0);
        __block int told = 0;
        xpc_object_t desc = shared();
        interface_ref interface = vmnet_start_interface(desc, queue, ^(vmnet_return_t status, xpc_object_t param) {
            CHECK((status == VMNET_SUCCESS) == (param != NULL));
            CHECK(told++ == 0);
        });
        xpc_release(desc);
        int none = 0;
        vmnet_return_t early = vmnet_read(interface, NULL, &none);
        CHECK(early == VMNET_SETUP_INCOMPLETE || early == VMNET_SUCCESS);
        CHECK(vmnet_stop_interface(interface, queue, ^(vmnet_return_t status) {
                  CHECK(status == VMNET_SUCCESS && told++ == 1);
                  dispatch_semaphore_signal(done);
              }) == VMNET_SUCCESS);
        WITHIN(done);
        dispatch_release(done);
    }
}

static void question_of(interface_ref interface, uint32_t count) {
    uint8_t frame[QUESTION_FRAME];
    question(frame, talk.mac, 1, count, 100);
    write_one(interface, frame, sizeof frame);
}

/* A callback that clears itself, frees what it uses, and stops its own interface. */
static void callbacks(void) {
    struct started it = started(shared(), queue);
    speak_as(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key));
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    int *mine = malloc(sizeof *mine);
    *mine = 7;
    CHECK(vmnet_interface_set_event_callback(it.interface, 1, queue, ^(interface_event_t mask, xpc_object_t event) {
              (void)mask;
              xpc_release(xpc_retain(event));
              CHECK(*mine == 7);
              CHECK(vmnet_interface_set_event_callback(it.interface, 1, NULL, NULL) == VMNET_SUCCESS);
              free(mine);
              CHECK(vmnet_stop_interface(it.interface, queue, ^(vmnet_return_t status) {
                        CHECK(status == VMNET_SUCCESS);
                        dispatch_semaphore_signal(done);
                    }) == VMNET_SUCCESS);
          }) == VMNET_SUCCESS);
    question_of(it.interface, 50);
    WITHIN(done);
    xpc_release(it.parameters);

    /* One that replaces itself by another, from within. */
    it = started(shared(), queue);
    CHECK(vmnet_interface_set_event_callback(it.interface, 1, queue, ^(interface_event_t mask, xpc_object_t event) {
              (void)mask;
              (void)event;
              vmnet_interface_set_event_callback(it.interface, 1, queue, ^(interface_event_t again, xpc_object_t what) {
                  (void)again;
                  (void)what;
                  vmnet_interface_set_event_callback(it.interface, 1, NULL, NULL);
                  dispatch_semaphore_signal(done);
              });
          }) == VMNET_SUCCESS);
    question_of(it.interface, 50);
    WITHIN(done);
    stop(it.interface, queue);
    xpc_release(it.parameters);
    dispatch_release(done);
}

/* An event that nobody reads does not spin. */
static void unread(void) {
    struct started it = started(shared(), queue);
    __block int events = 0;
    CHECK(vmnet_interface_set_event_callback(it.interface, 1, queue, ^(interface_event_t mask, xpc_object_t event) {
              (void)mask;
              (void)event;
              events++;
          }) == VMNET_SUCCESS);
    question_of(it.interface, 20);
    sleep(1);
    stop(it.interface, queue);
    CHECK(events > 1 && events < 1500);
    xpc_release(it.parameters);
}

struct race {
    interface_ref interface;
    bool over;
};

static void *read_and_write(void *context) {
    struct race *race = context;
    uint8_t bytes[1514];
    while (!__atomic_load_n(&race->over, __ATOMIC_ACQUIRE)) {
        struct iovec iov[4];
        struct vmpktdesc packets[4];
        for (int i = 0; i < 4; i++) {
            iov[i] = (struct iovec){bytes, sizeof bytes};
            packets[i] = (struct vmpktdesc){sizeof bytes, &iov[i], 1, 0};
        }
        int count = 4;
        vmnet_return_t status = vmnet_read(race->interface, packets, &count);
        CHECK(status == VMNET_SUCCESS || status == VMNET_SETUP_INCOMPLETE);
        memset(bytes, 0xff, 6);
        memcpy(bytes + 6, talk.mac, 6);
        iov[0].iov_len = packets[0].vm_pkt_size = 64;
        count = 1;
        status = vmnet_write(race->interface, packets, &count);
        CHECK(status == VMNET_SUCCESS || status == VMNET_SETUP_INCOMPLETE);
    }
    return NULL;
}

/* Threads that read, write, set callbacks and stop, all at once. */
static void races(void) {
    for (int round = 0; round < 3; round++) {
        struct started it = started(shared(), queue);
        struct race race = {it.interface, false};
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, read_and_write, &race) == 0);
        for (int i = 0; i < 20; i++) {
            CHECK(vmnet_interface_set_event_callback(it.interface, 1, dispatch_get_global_queue(0, 0),
                                                     ^(interface_event_t mask, xpc_object_t event) {
                                                         (void)mask;
                                                         (void)event;
                                                     }) == VMNET_SUCCESS);
            usleep(1000);
        }
        stop(it.interface, queue);
        usleep(10000);
        __atomic_store_n(&race.over, true, __ATOMIC_RELEASE);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        xpc_release(it.parameters);
    }
}

/* A child without exec: its parent's interface is not its own, and it can have one. */
static void forks(void) {
    struct started it = started(shared(), queue);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60);
        uint8_t bytes[60] = {0};
        struct iovec iov = {bytes, sizeof bytes};
        struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(it.interface, &packet, &count) != VMNET_SUCCESS);
        count = 1;
        CHECK(vmnet_write(it.interface, &packet, &count) != VMNET_SUCCESS);
        succeed();
    }
    int how = 1;
    CHECK(waitpid(pid, &how, 0) == pid && succeeded(how));
    /* The parent's goes on. */
    speak_as(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key));
    question_of(it.interface, 5);
    uint8_t bytes[1514];
    int seen = 0;
    for (int i = 0; i < 5000 && seen < 5; i++) {
        struct iovec iov = {bytes, sizeof bytes};
        struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(it.interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) usleep(1000);
        else if (get16(bytes + 12) == TYPE_PEER) seen++;
    }
    CHECK(seen == 5);
    stop(it.interface, queue);
    xpc_release(it.parameters);
}

int main(void) {
    queue = dispatch_queue_create("hostile", DISPATCH_QUEUE_SERIAL);
    struct started it = started(shared(), queue);
    nulls(it.interface);
    stop(it.interface, queue);
    xpc_release(it.parameters);
    descriptions();
    stopped();
    stopped_at_once();
    callbacks();
    unread();
    races();
    forks();
    dispatch_release(queue);
    return 0;
}
