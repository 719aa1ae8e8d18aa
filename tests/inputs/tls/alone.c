/* Thread-local variables and nothing of the C library. */
#ifndef SIZE
#define SIZE 40
#endif
__thread int answer = 40;
__thread unsigned char zeroed[SIZE];
static __thread int kept = 1;

int main(void) {
    answer += kept + zeroed[SIZE - 1];
    kept++;
    return answer + kept - 1;
}
