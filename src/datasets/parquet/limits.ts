/** Bounds of reading Parquet. What a file says of its own sizes is believed up to these. */

/** Writers aim at 1 MB; one row of the longest texts makes a page of some MB, and a few writers make one page of a whole column. */
export const MAX_PAGE_BYTES = 256 * 2 ** 20;
/** Each value costs some bytes of memory even where the file spends a bit on it. */
export const MAX_PAGE_VALUES = 8 * 2 ** 20;
/** Statistics stand in headers, and may be whole texts. */
export const MAX_HEADER_BYTES = 16 * 2 ** 20;
/** Some 100 bytes a column and row group. */
export const MAX_FOOTER_BYTES = 64 * 2 ** 20;
/** A page of each column, decoded; what needs more ends the process that reads, and nothing else. */
export const READER_HEAP_MB = 1_024;
/** Processes that read at a time: each may take a gigabyte. */
export const MAX_READERS = 2;
/** The largest page takes seconds; a file that gives no row for this long was made to give none. */
export const READER_SILENCE_MS = 120_000;
