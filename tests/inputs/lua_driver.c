/* An interpreter for the Lua library: runs the script named by argv[1] with the remaining
 * arguments in the table arg, as lua.c does. An error prints its traceback on standard error and
 * gives exit code 1; os.exit and a script's integer result give theirs. */
#include <stdio.h>
#include <string.h>

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

static int add_traceback(lua_State *L)
{
    const char *message = lua_tostring(L, 1);
    if (message == NULL)
        message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    luaL_traceback(L, L, message, 1);
    return 1;
}

/* Called by scripts: a function of this object that reads its own static data. */
static int driver_name(lua_State *L)
{
    static const char *const parts[] = {"low", "2", "g"};
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        luaL_addstring(&buffer, parts[i]);
    luaL_pushresult(&buffer);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: SCRIPT [ARG...]\n");
        return 2;
    }
    lua_State *L = luaL_newstate();
    if (L == NULL)
        return 3;
    luaL_openlibs(L);
    lua_register(L, "driver_name", driver_name);
    lua_newtable(L);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, i == 1 ? "script" : argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");

    lua_pushcfunction(L, add_traceback);
    int status = luaL_loadfile(L, argv[1]);
    if (status == LUA_OK)
        status = lua_pcall(L, 0, 1, -2);
    int code = 0;
    if (status != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        code = 1;
    } else if (lua_isinteger(L, -1)) {
        code = (int)lua_tointeger(L, -1);
    }
    lua_close(L);
    return code;
}
