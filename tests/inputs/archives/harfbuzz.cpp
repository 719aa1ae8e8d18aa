// Shapes text in several scripts with a font made here (cmap, metrics, a ligature), and prints the
// glyphs: C++17, function tables, thread-local and static objects, no exceptions.
#include <cstdio>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "hb.h"

namespace {

/// Big-endian bytes of a font table.
struct Table {
    std::string bytes;
    Table &u16(unsigned value) { bytes += char(value >> 8); bytes += char(value); return *this; }
    Table &u32(unsigned value) { return u16(value >> 16).u16(value & 0xffff); }
};

struct Range { unsigned first, last; };
constexpr Range ranges[] = { { 0x20, 0x7e }, { 0xa0, 0x17f }, { 0x300, 0x36f }, { 0x5d0, 0x5ea }, { 0x621, 0x652 },
    { 0x900, 0x97f }, { 0xe01, 0xe5b }, { 0x1100, 0x11ff }, { 0xac00, 0xac7f }, { 0xfe70, 0xfefc } };

unsigned glyph_of(unsigned code)
{
    unsigned glyph = 1;
    for (auto [first, last] : ranges) {
        if (code >= first && code <= last)
            return glyph + code - first;
        glyph += last - first + 1;
    }
    return 0;
}

hb_face_t *make_face()
{
    constexpr unsigned glyphs = 2000;
    Table head, maxp, hhea, hmtx, cmap, gsub;
    head.u32(0x10000).u32(0x10000).u32(0).u32(0x5f0f3cf5).u16(0).u16(1000).u32(0).u32(0).u32(0).u32(0)
        .u16(0).u16(0).u16(1000).u16(1000).u16(0).u16(8).u16(2).u16(0).u16(0);
    maxp.u32(0x5000).u16(glyphs);
    hhea.u32(0x10000).u16(800).u16(0xff38).u16(90).u16(1000);
    for (int i = 0; i < 11; i++)
        hhea.u16(0);
    hhea.u16(glyphs);
    for (unsigned i = 0; i < glyphs; i++)
        hmtx.u16(400 + i % 300).u16(0);
    unsigned glyph = 1;
    cmap.u16(0).u16(1).u16(3).u16(10).u32(12).u16(12).u16(0).u32(16 + 12 * std::size(ranges)).u32(0).u32(std::size(ranges));
    for (auto [first, last] : ranges) {
        cmap.u32(first).u32(last).u32(glyph);
        glyph += last - first + 1;
    }
    // f i -> glyph 1999, in the feature liga of every script.
    gsub.u32(0x10000).u16(10).u16(30).u16(44);
    gsub.u16(1).u32(0x44464c54).u16(8).u16(4).u16(0).u16(0).u16(0xffff).u16(1).u16(0);
    gsub.u16(1).u32(0x6c696761).u16(8).u16(0).u16(1).u16(0);
    gsub.u16(1).u16(4).u16(4).u16(0).u16(1).u16(8).u16(1).u16(8).u16(1).u16(14);
    gsub.u16(1).u16(1).u16(glyph_of('f')).u16(1).u16(4).u16(1999).u16(2).u16(glyph_of('i'));
    hb_face_t *face = hb_face_builder_create();
    const std::pair<const char *, Table *> tables[] = { { "head", &head }, { "maxp", &maxp }, { "hhea", &hhea },
        { "hmtx", &hmtx }, { "cmap", &cmap }, { "GSUB", &gsub } };
    for (auto [name, table] : tables) {
        hb_blob_t *blob = hb_blob_create(table->bytes.data(), unsigned(table->bytes.size()),
            HB_MEMORY_MODE_DUPLICATE, nullptr, nullptr);
        hb_face_builder_add_table(face, hb_tag_from_string(name, 4), blob);
        hb_blob_destroy(blob);
    }
    hb_blob_t *whole = hb_face_reference_blob(face);
    hb_face_destroy(face);
    face = hb_face_create(whole, 0);
    hb_blob_destroy(whole);
    return face;
}

std::string shape(hb_font_t *font, std::string_view text)
{
    hb_buffer_t *buffer = hb_buffer_create();
    hb_buffer_add_utf8(buffer, text.data(), int(text.size()), 0, -1);
    hb_buffer_guess_segment_properties(buffer);
    hb_shape(font, buffer, nullptr, 0);
    char line[4096];
    unsigned written = 0;
    hb_buffer_serialize_glyphs(buffer, 0, hb_buffer_get_length(buffer), line, sizeof line, &written, font,
        HB_BUFFER_SERIALIZE_FORMAT_TEXT, HB_BUFFER_SERIALIZE_FLAG_DEFAULT);
    char script[8] = {};
    hb_tag_to_string(hb_script_to_iso15924_tag(hb_buffer_get_script(buffer)), script);
    std::string result = std::string(script) + (HB_DIRECTION_IS_BACKWARD(hb_buffer_get_direction(buffer)) ? " <- " : " -> ");
    result.append(line, written);
    hb_buffer_destroy(buffer);
    return result;
}

} // namespace

int main()
{
    hb_face_t *face = make_face();
    hb_font_t *font = hb_font_create(face);
    const std::vector<std::string_view> texts = { "office files, fin", "caf\u00e9 cafe\u0301", "\u05e9\u05dc\u05d5\u05dd",
        "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645", "\u0915\u094d\u0937\u093f \u0939\u093f\u0928\u094d\u0926\u0940",
        "\u1100\u1161\u11a8", "\u0e19\u0e49\u0e33" };
    std::vector<std::string> lines(texts.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < texts.size(); i++)
        threads.emplace_back([&, i] { lines[i] = shape(font, texts[i]); });
    for (auto &thread : threads)
        thread.join();
    for (auto &line : lines)
        std::puts(line.c_str());
    std::printf("harfbuzz %s, %u glyphs\n", hb_version_string(), hb_face_get_glyph_count(face));
    hb_font_destroy(font);
    hb_face_destroy(face);
    return 0;
}
