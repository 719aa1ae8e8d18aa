/* Debian's libgmp.a, most of it assembly. */
#include <gmp.h>
#include <stdio.h>

int main(void)
{
    mpz_t a, b, c;
    mpz_inits(a, b, c, NULL);
    mpz_fac_ui(a, 500);
    mpz_fib_ui(b, 5000);
    mpz_gcd(c, a, b);
    gmp_printf("%Zd\n", c);
    mpz_powm(c, b, a, a);
    gmp_printf("%Zx\n", c);
    mpz_mul(c, b, b);
    mpz_sqrt(c, c);
    printf("%d %zu\n", mpz_cmp(c, b), mpz_sizeinbase(a, 10));
    mpz_nextprime(c, b);
    gmp_printf("%Zd\n", c);
    mpz_ui_pow_ui(a, 3, 400000);
    printf("%zu %lu\n", mpz_sizeinbase(a, 2), mpz_fdiv_ui(a, 1000000007));
    mpz_clears(a, b, c, NULL);
    return 0;
}
