/* A training or evaluation view: from the bytes of a JPEG to resized RGB pixels.
 *
 * Luma and chroma are resized each from its own resolution, columns first, and converted to RGB at the size of the
 * output. Chroma's filter is that of the pixels behind the interpolation of a decoder (libjpeg's "fancy" upsampling),
 * so that the result is that of Pillow's decoding and resizing but for rounding. */

#include "view.h"

#include <string.h>

#include "decode.h"
#include "vectors.h"

/* What the components of a view are resized by: vertically and horizontally. */
typedef struct {
    Filter filter[3][2];
    const Filter *vertical[3];
} Plan;

static int make_filters(const Image *image, const View *view, const Component *one, Filter filter[2], Arena *arena) {
    int vertical = image->most_vertical / one->vertical, across = image->most_across / one->across;
    int smooth = is_smooth(image, one);
    return make_filter(&filter[0], &view->vertical, vertical, smooth && vertical == 2, one->high, arena) &&
           make_filter(&filter[1], &view->horizontal, across, smooth && across == 2, one->wide, arena);
}

/* The filters, and the parts of the components that they need; a status. */
static int plan_view(Image *image, const View *view, Plan *plan, Arena *arena) {
    if (!fits(&view->vertical, image->header.height) || !fits(&view->horizontal, image->header.width)) return OUTSIDE;
    if (view->vertical.length > GREATEST * view->vertical.resized) return OTHER;
    if (view->horizontal.length > GREATEST * view->horizontal.resized) return OTHER;
    for (int n = 0; n < image->components; n++) {
        Component *one = &image->component[n];
        Filter *filter = plan->filter[n];
        if (n && one->vertical == one[-1].vertical && one->across == one[-1].across)
            memcpy(filter, plan->filter[n - 1], sizeof plan->filter[n]);
        else if (!make_filters(image, view, one, filter, arena)) return NO_MEMORY;
        plan->vertical[n] = &filter[0];
        one->top = filter[0].low / 8, one->bottom = (filter[0].high + 7) / 8;
        one->left = filter[1].low / 8, one->right = (filter[1].high + 7) / 8;
        one->stride = 8 * (one->bottom - one->top) + 64;
        if (!(one->samples = take(arena, (size_t)(one->stride * 8 * (one->right - one->left))))) return NO_MEMORY;
    }
    return DONE;
}

/* At least `size`, and an odd number of 64 bytes of uint16: rows at powers of two would share lines of the cache. */
static int64_t odd(int64_t size) { return ((size + 31) / 32 | 1) * 32; }

/* Pixels of the view, from the decoded samples; a status. */
static int resize_view(const Image *image, const View *view, const Plan *plan, Arena *arena) {
    Plane plane[3];
    for (int n = 0; n < image->components; n++) {
        const Component *one = &image->component[n];
        const Filter *down = &plan->filter[n][0], *across = &plan->filter[n][1];
        plane[n] = (Plane){NULL, odd(across->count + 32), down->low, down->high - down->low};
        plane[n].samples = take(arena, (size_t)(plane[n].stride * ((plane[n].rows + 31) & ~31)) * 2);
        if (!plane[n].samples) return NO_MEMORY;
        filter_columns(across, one->samples + down->low - 8 * one->top, one->stride, 8 * one->left, &plane[n]);
    }
    int kind = image->components == 1 ? GRAY : image->is_rgb ? RGB : YCC;
    filter_rows(plan->vertical, plane, kind, (int32_t)view->horizontal.count, view->out, view->stride);
    return DONE;
}

static int show_view(const View *view, Tables *tables, Arena *arena, int64_t spent[2]) {
    Image image;
    Plan plan;
    int64_t begun = now();
    reset(arena);
    int status = open_image(&image, view->data, view->size, tables);
    if (!status) status = plan_view(&image, view, &plan, arena);
    if (!status) status = decode_parts(&image, arena);
    int64_t decoded = now();
    if (!status) status = resize_view(&image, view, &plan, arena);
    spent[0] += decoded - begun, spent[1] += now() - decoded;
    return status;
}

void show_views(const View *views, int64_t count, int64_t row, int32_t *statuses, int64_t watch[2], int64_t spent[2]) {
    Arena *arena = own_arena();
    Tables tables;
    forget(&tables);
    for (int64_t n = 0; n < count; n++) {
        watch[0] = row + n, watch[1] = now();
        statuses[n] = arena ? show_view(&views[n], &tables, arena, spent) : NO_MEMORY;
    }
}
