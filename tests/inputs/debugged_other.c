int deepest(int n) {
    volatile int doubled = n * 2;
    return doubled / 2; /* line 3 */
}
