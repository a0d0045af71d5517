#ifndef LIMBECK_TABLES_H
#define LIMBECK_TABLES_H
#include "decode.h"
int make_table(Tables *tables, int number, const uint8_t *from, int size);
#endif
