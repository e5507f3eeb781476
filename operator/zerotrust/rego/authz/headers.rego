# METADATA
# description: Headers of the request, whose names anybody may write in capitals.
package zerotrust.authz.headers

import data.zerotrust.authz.request

# What stands under a name (in lower case), each time that it came; a list is one that came several times, and no text.
values(name) := [value | some written, value in request.asked.headers; lower(written) == name]
