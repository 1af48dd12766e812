import json

import trunkline


@trunkline.sync("meter")
async def sync_meter(record, job):
    pages = int(await job.ask(record.id, "PAGES"))
    for page in range(1, pages + 1):
        await job.save(json.loads(await job.ask(record.id, f"PAGE {page}")))
        job.log(f"page {page} of {pages}")
        job.progress(page, pages)
