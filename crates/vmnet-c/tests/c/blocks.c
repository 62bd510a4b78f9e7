/* Blocks as clang makes them, on whichever runtime is linked. */
#include "check.h"

extern void *_Block_copy(const void *block);
extern void _Block_release(const void *block);

typedef int (^counter_t)(int step);

static counter_t counter(int start) {
    __block int count = start;
    counter_t add = ^(int step) {
        count += step;
        return count;
    };
    return (counter_t)_Block_copy((const void *)add);
}

static counter_t twice(counter_t inner) {
    /* A block that captures a block, copied with it. */
    return (counter_t)_Block_copy((const void *)^(int step) {
        inner(step);
        return inner(step);
    });
}

int main(void) {
    counter_t one = counter(10);
    counter_t other = counter(100);
    CHECK(one(1) == 11);
    CHECK(other(5) == 105);
    CHECK(one(1) == 12);

    counter_t doubled = twice(one);
    CHECK(doubled(1) == 14);
    _Block_release((const void *)one);
    CHECK(doubled(2) == 18);
    counter_t again = (counter_t)_Block_copy((const void *)doubled);
    CHECK(again == doubled);
    _Block_release((const void *)doubled);
    CHECK(again(0) == 18);
    _Block_release((const void *)again);
    _Block_release((const void *)other);

    /* A variable that two blocks and this function have. */
    __block long shared = 0;
    void (^up)(void) = (void (^)(void))_Block_copy((const void *)^{ shared += 1; });
    void (^down)(void) = (void (^)(void))_Block_copy((const void *)^{ shared -= 10; });
    up();
    down();
    shared *= 2;
    CHECK(shared == -18);
    _Block_release((const void *)up);
    down();
    CHECK(shared == -28);
    _Block_release((const void *)down);
    CHECK(shared == -28);

    /* A variable that holds a block, which its helpers keep. */
    __block counter_t held = counter(1);
    void (^use)(void) = (void (^)(void))_Block_copy((const void *)^{ CHECK(held(1) == 2); });
    use();
    _Block_release((const void *)use);
    _Block_release((const void *)held);

    /* One that captures nothing is never copied. */
    counter_t nothing = ^(int step) { return step + 1; };
    CHECK(_Block_copy((const void *)nothing) == (void *)nothing);
    _Block_release((const void *)nothing);
    CHECK(nothing(1) == 2);
    return 0;
}
