/* The interpreter of libpython3.11.a, as python's own main program starts it. */
int Py_BytesMain(int argc, char **argv);

int main(int argc, char **argv)
{
    return Py_BytesMain(argc, argv);
}
