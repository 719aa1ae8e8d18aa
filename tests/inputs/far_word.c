/* A 32-bit word that should hold the address of the C library's variable. */
__asm__(".data\n.globl word\nword: .long environ\n.text");

int main(void) { return 0; }
