from event_service.libs.shutdown_notice import ShutdownNotice


def test_a_process_that_is_replaced_leaves_and_the_service_goes_on():
    notice = ShutdownNotice()
    notice.leave()
    assert notice.leaving
    assert not notice.stopping


def test_a_service_that_stops_leaves_too():
    notice = ShutdownNotice()
    notice.stop()
    assert notice.leaving
    assert notice.stopping


def test_listeners_are_told_once():
    notice, told = ShutdownNotice(), []
    notice.on_leaving(lambda: told.append("early"))
    notice.leave()
    notice.stop()
    notice.on_leaving(lambda: told.append("late"))
    assert told == ["early", "late"]
