/* Debian's libatomic.a: 16-byte operations are ifuncs; called, and their address taken. */
#include <stdbool.h>
#include <stdio.h>

typedef unsigned __int128 wide;

extern wide __atomic_fetch_add_16(volatile void *, wide, int);
wide (*const taken)(volatile void *, wide, int) = __atomic_fetch_add_16;

static _Alignas(16) wide number;
static struct odd { char bytes[11]; } odd = { "odd bytes " }, other, third = { "third one " };

int main(void)
{
    for (int i = 0; i < 5; i++)
        __atomic_fetch_add(&number, (wide)i << 64 | 3, __ATOMIC_SEQ_CST);
    taken(&number, 1, __ATOMIC_RELAXED);
    wide (*volatile again)(volatile void *, wide, int) = __atomic_fetch_add_16;
    printf("%d %d\n", again == taken, (int)__atomic_fetch_sub(&number, 1, __ATOMIC_SEQ_CST));
    __atomic_fetch_or(&number, 64, __ATOMIC_SEQ_CST);
    __atomic_fetch_xor(&number, 8, __ATOMIC_SEQ_CST);
    __atomic_fetch_and(&number, ~(wide)1, __ATOMIC_SEQ_CST);
    __atomic_fetch_nand(&number, 0, __ATOMIC_SEQ_CST);
    wide expected = number, wanted = 7;
    bool swapped = __atomic_compare_exchange(&number, &expected, &wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    wide old = __atomic_exchange_n(&number, 9, __ATOMIC_SEQ_CST);
    wide now = __atomic_load_n(&number, __ATOMIC_SEQ_CST);
    printf("%d %llx %llu %llu\n", swapped, (unsigned long long)expected, (unsigned long long)old, (unsigned long long)now);
    __atomic_load(&odd, &other, __ATOMIC_SEQ_CST);
    __atomic_exchange(&odd, &third, &third, __ATOMIC_SEQ_CST);
    printf("%s|%s|%s\n", other.bytes, odd.bytes, third.bytes);
    return __atomic_is_lock_free(3, &odd);
}
