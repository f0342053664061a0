"""Which header the standard says a name is in, of names that other headers of some library give away too.

What one library takes without the #include, the next version may not. The list is of what was met and what is near it;
it is not complete, and leaves out what no library can do without in other headers (std::move, std::pair, std::size_t).
"""

# Where a header is one of several that will do, they are separated by "|".
NAMES = {
    "algorithm": r"adjacent_find all_of any_of binary_search clamp copy_if copy_n count count_if equal equal_range fill "
                 r"fill_n find find_if find_if_not for_each generate is_sorted lexicographical_compare lower_bound max "
                 r"max_element merge min min_element minmax minmax_element mismatch none_of nth_element partial_sort "
                 r"partition remove_copy_if remove_if replace reverse rotate search set_difference set_intersection "
                 r"set_union sort stable_sort swap_ranges transform unique upper_bound",
    "array": "array to_array",
    "atomic": r"atomic atomic_ref atomic_thread_fence memory_order_\w+",
    "barrier": "barrier",
    "bit": "bit_cast bit_ceil bit_floor bit_width countl_zero countr_zero endian has_single_bit popcount",
    "cctype": r"is(?:al(?:num|pha)|digit|lower|print|punct|space|upper|xdigit) to(?:lower|upper)",
    "charconv": "from_chars to_chars",
    "chrono": "chrono",
    "cmath": "ceil cos exp exp2 fabs floor fma fmod frexp hypot isfinite isinf isnan ldexp llrint llround log log10 log1p "
             "log2 lround nearbyint nextafter pow rint round scalbn signbit sin sqrt tanh trunc",
    "condition_variable": "condition_variable",
    "csignal": "raise signal",
    "cstdint": r"u?int(?:8|16|32|64)_t u?intptr_t",
    "cstdio": "FILE fclose fflush fopen fprintf fputc fputs fread fwrite perror printf snprintf",
    "cstdlib": "_Exit abort atexit atoi exit free getenv malloc strtod strtol strtoll strtoull system",
    "cstring": "memchr memcmp memcpy memmove memset strchr strcmp strerror strlen strsignal strstr",
    "deque": "deque",
    "exception": "current_exception exception_ptr make_exception_ptr rethrow_exception set_terminate terminate",
    "filesystem": "filesystem",
    "fmt/ranges.h": "join",  # of fmt::; before version 11 in fmt/format.h too
    "fstream": "fstream ifstream ofstream",
    "functional": "function greater less plus ref",
    "future": "async future promise",
    "iostream": "cerr cin cout",
    "latch": "latch",
    "limits": "numeric_limits",
    "list": "list",
    "map": "map multimap",
    "memory": "addressof make_shared make_unique shared_ptr unique_ptr weak_ptr",
    "mutex": "call_once lock_guard mutex once_flag recursive_mutex scoped_lock unique_lock",
    "new": "align_val_t bad_alloc nothrow",
    "numbers": "numbers",
    "numeric": "accumulate gcd inner_product iota lcm midpoint partial_sum reduce",
    "optional": "make_optional nullopt optional",
    "random": r"minstd_rand mt19937(?:_64)? \w+_distribution",
    "regex": r"cmatch regex regex_\w+ smatch",
    "set": "multiset set",
    "shared_mutex": "shared_lock shared_mutex",
    "span": "as_bytes as_writable_bytes span",
    "sstream": "istringstream ostringstream stringstream",
    "stdexcept": "domain_error invalid_argument length_error logic_error out_of_range overflow_error runtime_error",
    "stop_token|thread": "stop_source stop_token",
    "string": "stod stof stoi stol stoll stoul stoull string to_string",
    "string_view": "string_view",
    "system_error|charconv|filesystem|fstream": "errc error_code generic_category system_error",
    "thread": "jthread this_thread thread",
    "tuple": "apply forward_as_tuple make_tuple tie tuple",
    "unordered_map": "unordered_map",
    "unordered_set": "unordered_set",
    "variant": "get_if holds_alternative monostate variant visit",
    "vector": "vector",
}

# What other libraries' headers promise along with themselves, and the standard's that take strings.
ALONG = {
    "CLI/CLI.hpp": "string vector",
    "benchmark/benchmark.h": "string vector",
    "filesystem": "string",
    "fmt/format.h": "string string_view",
    "fmt/ranges.h": "string string_view",
    "fstream": "string",
    "gtest/gtest.h": "limits memory sstream string vector",
    "nlohmann/json.hpp": "map string vector",
    "sstream": "string",
    "stdexcept": "string",
    "string": "string_view",
}
