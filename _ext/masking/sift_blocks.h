/* The first look of sift.h at one block of bytes after the other. sift.h includes it once for each size of a block, and says
 * by SIFT_... what that size's vectors are called. */

/* Of each byte, given by its halves, the bits that two tables have. */
#define SIFT_LOOK(tables)                                               \
    SIFT_AND(SIFT_OF(shuffle_epi8)(SIFT_TABLE(tables), lower),          \
             SIFT_OF(shuffle_epi8)(SIFT_TABLE((tables) + 16), upper))

SIFT_TARGET static size_t SIFT_BLOCKS(const search_run *run, const unsigned char *sieve, size_t from) {
    const SIFT_VECTOR half = SIFT_OF(set1_epi8)(15), none = SIFT_NONE, all = SIFT_OF(set1_epi8)(-1),
                      signs = SIFT_OF(set1_epi8)(SIFT_UNCOUNTED), backslash = SIFT_OF(set1_epi8)('\\'),
                      u = SIFT_OF(set1_epi8)('u');
    /* What the block before this one had. Any letter may have been the first one. */
    SIFT_VECTOR before_was = all, first_or_sign_was = all, middle_was = none, last_was = none, sign_was = none,
                hiding_was = none;
    unsigned char rest[SIFT_BYTES + 1];
    /* A place is known when two more bytes were looked at. */
    for (size_t at = from; at < run->length + 2; at += SIFT_BYTES) {
        const unsigned char *bytes = run->text + at;
        /* Behind the event nothing may be read. Zeros stand for that, and are no letters. */
        if (run->length < at + SIFT_BYTES + 1) {
            memset(rest, 0, sizeof rest);
            if (at < run->length)
                memcpy(rest, bytes, run->length - at);
            bytes = rest;
        }
        const SIFT_VECTOR block = SIFT_LOAD(bytes), next = SIFT_LOAD(bytes + 1), lower = SIFT_AND(block, half),
                          upper = SIFT_AND(SIFT_OF(srli_epi16)(block, 4), half), first = SIFT_LOOK(sieve),
                          middle = SIFT_LOOK(sieve + 32), last = SIFT_LOOK(sieve + 64),
                          other = SIFT_LOOK(sieve + SIFT_OTHERS),
                          sign = SIFT_OF(cmpgt_epi8)(SIFT_AND(other, signs), none),
                          escape = SIFT_AND(SIFT_OF(cmpeq_epi8)(block, backslash), SIFT_OF(cmpeq_epi8)(next, u)),
                          hiding = SIFT_OR(escape, SIFT_AND_NOT(signs, other));
        /* A sign stands for the first letter only behind that or another sign, and for the last one only before them. */
        const SIFT_VECTOR first_or_sign = SIFT_OR(first, sign),
                          before = SIFT_OR(first, SIFT_AND(sign, SIFT_LATER(first_or_sign, first_or_sign_was, 1))),
                          behind = SIFT_OR(SIFT_LATER(last, last_was, 1),
                                           SIFT_AND(SIFT_OR(last, sign), SIFT_LATER(sign, sign_was, 1))),
                          triple = SIFT_AND(behind, SIFT_AND(SIFT_LATER(middle, middle_was, 2),
                                                             SIFT_LATER(before, before_was, 3))),
                          any = SIFT_OR(triple, SIFT_LATER(hiding, hiding_was, 2));
        uint32_t bits = (uint32_t)SIFT_OF(movemask_epi8)(SIFT_OF(cmpeq_epi8)(any, none)) ^ (UINT32_MAX >> (32 - SIFT_BYTES));
        for (; bits; bits &= bits - 1) {
            const size_t place = at + (size_t)__builtin_ctz(bits) - 2;
            /* A key of one letter is found among the zeros. */
            if (place >= run->length)
                break;
            if (sift_is_letter(run, place) ? sift_letter(run, sieve, place) : sift_hidden(run, place)) {
                SIFT_LEAVE();
                return place;
            }
        }
        before_was = before;
        first_or_sign_was = first_or_sign;
        middle_was = middle;
        last_was = last;
        sign_was = sign;
        hiding_was = hiding;
    }
    SIFT_LEAVE();
    return run->length;
}

#undef SIFT_LOOK
#undef SIFT_BLOCKS
#undef SIFT_BYTES
#undef SIFT_TARGET
#undef SIFT_VECTOR
#undef SIFT_OF
#undef SIFT_AND
#undef SIFT_AND_NOT
#undef SIFT_OR
#undef SIFT_NONE
#undef SIFT_LOAD
#undef SIFT_TABLE
#undef SIFT_LATER
#undef SIFT_LEAVE
