from event_service.cli import main

main()
