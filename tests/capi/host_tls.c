/* Thread-local variables of the program itself, used by objects of every model (the arguments), by
   threads that run before the objects are loaded and by threads that start later. The program is
   linked with -rdynamic, so that the dynamic linker knows its variables. */
#include "check.h"

#include <pthread.h>
#include <semaphore.h>

#define OLD 2

_Thread_local int host_value = 7;
_Thread_local char host_zeroed[100];

typedef int *address_fn(void);
typedef int bump_fn(int);

static address_fn *address;
static bump_fn *bump;
static address_fn *zeroed;

struct worker {
    pthread_t thread;
    sem_t go, done;
    int stop;
};

static void use(void)
{
    CHECK(address() == &host_value);
    CHECK(zeroed() == (int *)(void *)host_zeroed);
    int before = host_value;
    CHECK(bump(5) == before + 5 && host_value == before + 5);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (;;) {
        sem_wait(&worker->go);
        if (worker->stop)
            return NULL;
        use();
        sem_post(&worker->done);
    }
}

static void *late(void *argument)
{
    CHECK(host_value == 7);
    use();
    return argument;
}

static void *function(low2g_module *module, const char *name)
{
    char *error = NULL;
    void *found = low2g_module_function(module, name, &error);
    CHECK(found != NULL);
    return found;
}

int main(int argc, char **argv)
{
    struct worker old[OLD];
    for (int i = 0; i < OLD; i++) {
        old[i].stop = 0;
        sem_init(&old[i].go, 0, 0);
        sem_init(&old[i].done, 0, 0);
        CHECK(pthread_create(&old[i].thread, NULL, work, &old[i]) == 0);
    }
    CHECK(argc > 1);
    for (int i = 1; i < argc; i++) {
        char *error = NULL;
        low2g_session *session = low2g_session_new(NULL, NULL, &error);
        CHECK(session != NULL);
        CHECK(low2g_session_add_file(session, argv[i], &error) == LOW2G_STATUS_OK);
        low2g_module *module = NULL;
        if (low2g_session_load(session, &module, &error) != LOW2G_STATUS_OK) {
            fprintf(stderr, "%s: %s\n", argv[i], error);
            return 1;
        }
        void *found = function(module, "address");
        memcpy(&address, &found, sizeof address);
        found = function(module, "bump");
        memcpy(&bump, &found, sizeof bump);
        found = function(module, "zeroed");
        memcpy(&zeroed, &found, sizeof zeroed);
        use();
        for (int j = 0; j < OLD; j++) {
            sem_post(&old[j].go);
            sem_wait(&old[j].done);
        }
        for (int j = 0; j < 2; j++) {
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, late, NULL) == 0);
            pthread_join(thread, NULL);
        }
        CHECK(low2g_module_unload(module, &error) == LOW2G_STATUS_OK);
        CHECK(low2g_session_free(session) == LOW2G_STATUS_OK);
    }
    for (int i = 0; i < OLD; i++) {
        old[i].stop = 1;
        sem_post(&old[i].go);
        pthread_join(old[i].thread, NULL);
    }
    return 0;
}
